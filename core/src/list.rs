//! Outputs and lists as they are recorded: a step that runs for every item has one output for each.

use serde_json::value::RawValue;

use crate::definition::Definition;
use crate::state::{Forward, State};
use crate::{Json, JsonError};

/// The most items that a step runs for.
pub const MAX_ITEMS: usize = 10_000;

/// The items for which a step runs once each.
pub(crate) fn items(definition: &Definition, state: &State, step: usize) -> Result<Vec<Box<RawValue>>, JsonError> {
    let over = definition.steps[step].for_each.as_ref().map_or("", |each| &*each.over);
    let mut path = over.split('.');
    let root = path.next().unwrap_or_default();
    let json = match definition.step(root) {
        Some((earlier, _)) => output(definition, state, earlier, None)?.unwrap_or_else(Json::null),
        None => state.input.clone(),
    };
    let mut text: Box<RawValue> = json.decode()?;
    for field in path {
        let mut fields: std::collections::HashMap<String, Box<RawValue>> = serde_json::from_str(text.get())?;
        text = fields.remove(field).unwrap_or_else(|| RawValue::NULL.to_owned());
    }
    let items: Vec<_> = serde_json::from_str(text.get())?;
    if items.len() > MAX_ITEMS { Err(JsonError::TooMany(items.len())) } else { Ok(items) }
}

/// The output of a step, of one item of it, or of all its items as a list; `None` while it is not complete. Where another
/// path was taken, it is the output of that one.
pub(crate) fn output(
    definition: &Definition,
    state: &State,
    step: usize,
    item: Option<u32>,
) -> Result<Option<Json>, JsonError> {
    let it = &definition.steps[step];
    if let Some(end) = it.alternate.filter(|_| item.is_none() && state.diverted.contains_key(&*it.name)) {
        return output(definition, state, end, None);
    }
    match state.fans.get(&*it.name) {
        Some(fan) if item.is_none() => {
            let null = Json::null();
            let outputs = fan.items.iter().map(|item| match &item.forward {
                Forward::Succeeded { output, .. } => Some(output),
                Forward::Skipped { .. } => Some(&null),
                _ => None,
            });
            outputs.collect::<Option<Vec<_>>>().map(|outputs| Json::encode(&outputs)).transpose()
        }
        _ => Ok(state.output(&it.name, item).cloned()),
    }
}
