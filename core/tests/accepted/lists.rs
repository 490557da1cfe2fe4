//! What a step can run for every item of.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet, VecDeque};

use amends::{Call, StepResult, saga};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Serialize, Deserialize)]
#[serde(bound = "T: Serialize + DeserializeOwned")]
struct Order<T> {
    lines: Box<Lines>,
    items: Vec<T>,
    codes: [u8; 4],
}

#[derive(Serialize, Deserialize)]
struct Lines {
    names: BTreeSet<String>,
    marks: Option<HashSet<char>>,
    rows: VecDeque<Vec<u8>>,
    cells: Box<[u16]>,
    texts: Cow<'static, [String]>,
    r#type: Vec<u8>,
}

struct Shop<T>(T);

#[saga(name = "shop", version = 1, input = Order<T>)]
impl<T: Clone + Serialize + DeserializeOwned + Send + Sync + 'static> Shop<T> {
    #[step(call, compensate = forget, for_each = input.lines.names)]
    async fn name(&self, _call: &Call, item: &str) -> StepResult<Option<Vec<String>>> {
        Ok(Some(vec![item.to_owned()]))
    }

    #[step(call, compensate = none, for_each = input.lines.marks)]
    async fn mark(&self, _call: &Call, item: &char) -> StepResult<char> {
        Ok(*item)
    }

    #[step(call, compensate = none, for_each = input.lines.rows)]
    async fn row(&self, _call: &Call, item: &[u8]) -> StepResult<usize> {
        Ok(item.len())
    }

    #[step(call, compensate = none, for_each = input.lines.cells)]
    async fn cell(&self, _call: &Call, item: &u16) -> StepResult<u16> {
        Ok(*item)
    }

    #[step(call, compensate = none, for_each = input.lines.texts)]
    async fn text(&self, _call: &Call, item: &String) -> StepResult<usize> {
        Ok(item.len())
    }

    #[step(call, compensate = none, for_each = input.lines.r#type)]
    async fn kind(&self, _call: &Call, item: &u8) -> StepResult<u8> {
        Ok(*item)
    }

    #[step(call, compensate = none, for_each = input.items)]
    async fn item_of_any_type(&self, _call: &Call, item: &T) -> StepResult<T> {
        Ok(item.clone())
    }

    #[step(call, compensate = none, for_each = input.codes)]
    async fn code(&self, _call: &Call, item: &u8) -> StepResult<Option<Vec<u8>>> {
        Ok(Some(vec![*item]))
    }

    #[step(call, compensate = none, for_each = name)]
    async fn names(&self, _call: &Call, item: &Option<Vec<String>>) -> StepResult<Option<Vec<u32>>> {
        Ok(item.as_ref().map(|names| vec![names.len() as u32]))
    }

    #[step(call, compensate = none)]
    async fn count(&self, _call: &Call) -> StepResult<Option<Vec<u32>>> {
        Ok(None)
    }

    #[step(call, compensate = none, for_each = count)]
    async fn counted(&self, _call: &Call, item: &u32) -> StepResult<u32> {
        Ok(*item)
    }

    #[compensate]
    async fn forget(&self, _call: &Call, item: &String) -> StepResult<()> {
        let _ = item;
        Ok(())
    }
}

#[test]
fn a_step_runs_for_each_of_any_list() {
    let _ = Shop(0_u8).0;
}
