//! Whether a saga that another definition started can go on under this one, from where it stands.

use super::{Definition, Step};
use crate::machine::is_past_pivot;
use crate::state::{Forward, State};

/// What becomes of a saga that goes on under another definition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Position {
    /// It goes on.
    Safe,
    /// It is past a step that it never ran, and what comes next reads it.
    NeedsUpcast {
        /// The step.
        step: String,
    },
    /// It could neither go on nor back.
    Stranded {
        /// Where.
        step: String,
        /// Why.
        why: &'static str,
    },
}

impl Definition {
    /// Whether a saga in this state can go on under this definition. What is recorded decides, not what the definition
    /// was under which it was started.
    pub fn position(&self, state: &State) -> Position {
        let recorded = |name: &str| state.steps.contains_key(name) || state.fans.contains_key(name);
        if !is_past_pivot(self, state) {
            let names = state.steps.keys().chain(state.fans.keys());
            if let Some(gone) =
                names.filter(|name| self.step(name).is_none()).find(|name| may_have_happened(state, name))
            {
                return Position::Stranded { step: gone.clone(), why: "it is gone, so nothing could undo it" };
            }
        }
        for (index, step) in self.steps.iter().enumerate() {
            let record = state.steps.get(&*step.name);
            if matches!(record, Some(record) if matches!(record.forward, Forward::Waiting(_)) && !step.kind.waits()) {
                return Position::Stranded {
                    step: step.name.to_string(),
                    why: "it waits for an answer, and would not any more",
                };
            }
            let is_counted = state.fans.contains_key(&*step.name);
            let has_run = is_counted || record.is_some_and(|record| !never_ran(&record.forward));
            if step.for_each.is_some() != is_counted && has_run {
                return Position::Stranded {
                    step: step.name.to_string(),
                    why: "it ran for one item, or for each of many",
                };
            }
            let is_past = !recorded(&step.name) && self.is_behind_any(index, &recorded);
            if is_past && step.since <= state.version {
                // It would run after what comes after it.
                return Position::NeedsUpcast { step: step.name.to_string() };
            }
            if is_past && !step.upcast && self.readers(step).any(|reader| !recorded(&reader.name)) {
                return Position::NeedsUpcast { step: step.name.to_string() };
            }
        }
        Position::Safe
    }

    fn is_behind_any(&self, step: usize, recorded: &impl Fn(&str) -> bool) -> bool {
        let alternates = self.alternates();
        // A path that was not taken has no record, and is missed by nobody.
        let is_optional = alternates.iter().any(|it| it.path.contains(&step) || it.primary.contains(&step));
        !is_optional
            && (step + 1..self.steps.len())
                .any(|later| recorded(&self.steps[later].name) && self.ancestors(later).any(|it| it == step))
    }

    fn readers(&self, step: &Step) -> impl Iterator<Item = &Step> {
        let (name, is_optional) = (step.name.clone(), step.skippable);
        self.steps.iter().filter(move |it| !is_optional && it.reads.contains(&name))
    }
}

/// What it returned was made up, or an operator did without it: that counts no items, and leaves nothing to undo.
fn never_ran(forward: &Forward) -> bool {
    matches!(forward, Forward::Succeeded { made_up: true, .. } | Forward::Skipped { attempt: 0, .. })
}

fn may_have_happened(state: &State, name: &str) -> bool {
    let happened =
        |forward: &Forward| !never_ran(forward) && !matches!(forward, Forward::Absent { .. } | Forward::Skipped { .. });
    state.steps.get(name).is_some_and(|record| happened(&record.forward)) || state.fans.contains_key(name)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::Position;
    use crate::event::{Event, JournalRow};
    use crate::state::State;
    use crate::{Definition, ForEach, Json, SagaId, Step, StepKind};

    fn after(steps: &[&str]) -> State {
        after_events(steps.iter().map(|step| Event::Succeeded { step: (*step).to_owned(), output: Json::null() }))
    }

    fn after_events(events: impl IntoIterator<Item = Event>) -> State {
        let mut state = State::new(Json::null(), 1, DateTime::UNIX_EPOCH);
        for (index, event) in events.into_iter().enumerate() {
            let events = vec![event];
            let row = JournalRow { saga: SagaId::new(), seq: index as i64 + 1, events, at: DateTime::UNIX_EPOCH };
            state.apply(&row);
        }
        state
    }

    fn definition(steps: Vec<Step>) -> Definition {
        let chained = steps.into_iter().enumerate().map(|(index, step)| {
            let after: Vec<_> = index.checked_sub(1).into_iter().collect();
            Step { after: after.into(), ..step }
        });
        Definition { since: 1, ..Definition::new("s".into(), 2, chained.collect::<Vec<_>>().into()) }
    }

    fn step(name: &'static str) -> Step {
        Step::new(name.into(), StepKind::Call)
    }

    #[test]
    fn what_was_added_behind_or_removed_ahead_of_a_saga_does_not_matter() {
        let grown = definition(vec![step("a"), step("b"), Step { since: 2, ..step("c") }]);
        assert_eq!(grown.position(&after(&["a"])), Position::Safe);
        assert_eq!(definition(vec![step("a")]).position(&after(&["a"])), Position::Safe);
    }

    #[test]
    fn a_step_that_has_run_and_is_gone_strands_the_saga() {
        let position = definition(vec![step("reserve")]).position(&after(&["book"]));
        assert!(matches!(position, Position::Stranded { step, .. } if step == "book"));
    }

    #[test]
    fn a_step_that_was_put_before_what_has_run_needs_to_be_made_up_if_it_is_read() {
        let check = Step { since: 2, ..step("check") };
        let reads = Step { reads: vec!["check".into()].into(), ..step("c") };
        let unread = definition(vec![check.clone(), step("b"), step("c")]);
        let read = definition(vec![check.clone(), step("b"), reads.clone()]);
        let made_up = definition(vec![Step { upcast: true, ..check }, step("b"), reads]);
        assert_eq!(unread.position(&after(&["b"])), Position::Safe);
        assert_eq!(read.position(&after(&["b"])), Position::NeedsUpcast { step: "check".to_owned() });
        assert_eq!(made_up.position(&after(&["b"])), Position::Safe);
        assert!(matches!(
            definition(vec![step("check"), step("b")]).position(&after(&["b"])),
            Position::NeedsUpcast { .. }
        ));
    }

    fn made_up(step: &str) -> Event {
        Event::Upcast { step: step.to_owned(), output: Json::null() }
    }

    #[test]
    fn a_list_that_was_made_up_has_no_items_and_strands_no_saga() {
        let each = || Some(ForEach { over: "input".into(), concurrency: 1 });
        let picks = definition(vec![Step { since: 2, upcast: true, for_each: each(), ..step("pick") }, step("b")]);
        let past = after(&["b"]);
        let again = after_events([Event::Succeeded { step: "b".to_owned(), output: Json::null() }, made_up("pick")]);
        assert_eq!(picks.position(&past), Position::Safe);
        assert_eq!(picks.position(&again), Position::Safe);
        assert!(matches!(picks.position(&after(&["pick"])), Position::Stranded { .. }), "it ran for one item");
    }

    #[test]
    fn a_step_that_was_made_up_and_is_gone_need_not_be_undone() {
        assert_eq!(definition(vec![step("b")]).position(&after_events([made_up("check")])), Position::Safe);
    }
}
