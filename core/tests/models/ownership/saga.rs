//! A saga of two calls, the second of which may be rejected, and its journal.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use amends::event::{Cause, Event, Failure, JournalRow, Outcome, Rejection};
use amends::machine::{Action, decide};
use amends::state::State;
use amends::{Compensation, Definition, Json, RetryPolicy, SagaId, Step, StepKind, WorkerId};
use chrono::DateTime;
use uuid::Uuid;

/// How often a step is tried.
const ATTEMPTS: u32 = 2;

/// What a row of the journal says, in a form that the checker can hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fact {
    Succeeded { step: usize },
    Rejected { step: usize, attempt: u32 },
    TimedOut { step: usize, attempt: u32 },
    Compensated { step: usize },
    Adopted,
    Cancelled,
    Ended(Outcome),
}

/// One append.
pub(crate) type Row = Vec<Fact>;

pub(crate) static DEFINITION: LazyLock<Definition> = LazyLock::new(|| {
    let step = |name: &'static str, after: Vec<usize>| Step {
        after: after.into(),
        compensation: Some(Compensation::new("undo".into(), StepKind::Call)),
        retry: RetryPolicy { attempts: Some(ATTEMPTS), ..RetryPolicy::STEP },
        ..Step::new(name.into(), StepKind::Call)
    };
    Definition::new("order".into(), 1, vec![step("a", vec![]), step("b", vec![0])].into())
});

thread_local! {
    /// The same few journals come up again and again.
    static DECIDED: RefCell<HashMap<Vec<Row>, Option<Action>>> = RefCell::default();
}

/// What the machine decides. Steps follow each other, so it is one thing at most.
pub(crate) fn decide_on(rows: Vec<Row>) -> Option<Action> {
    let known = DECIDED.with_borrow(|decided| decided.get(&rows).cloned());
    known.unwrap_or_else(|| {
        let mut decisions = decide(&DEFINITION, &fold(&rows));
        assert!(decisions.len() <= 1, "{decisions:?}");
        let decision = decisions.pop();
        DECIDED.with_borrow_mut(|decided| decided.insert(rows, decision.clone()));
        decision
    })
}

fn fold(rows: &[Row]) -> State {
    let mut state = State::new(Json::null(), DEFINITION.version, DateTime::UNIX_EPOCH);
    for (seq, row) in (1..).zip(rows) {
        let events = row.iter().map(|fact| fact.event()).collect();
        state.apply(&JournalRow { saga: SagaId(Uuid::nil()), seq, events, at: DateTime::UNIX_EPOCH });
    }
    state
}

impl Fact {
    fn event(self) -> Event {
        let name = |step: usize| DEFINITION.steps[step].name.to_string();
        match self {
            Self::Succeeded { step } => Event::Succeeded { step: name(step), output: Json::null() },
            Self::Rejected { step, attempt } => {
                Event::Rejected { step: name(step), attempt, rejection: Rejection::new("no") }
            }
            Self::TimedOut { step, attempt } => {
                let retry_in = (attempt < ATTEMPTS).then_some(Duration::ZERO);
                let failure = Failure { attempt, cause: Cause::Timeout, error: String::new(), retry_in };
                Event::Failed { step: name(step), failure }
            }
            Self::Compensated { step } => Event::Compensated { step: name(step) },
            Self::Adopted => Event::Adopted { by: WorkerId(Uuid::nil()) },
            Self::Cancelled => Event::Cancelled { id: Uuid::nil(), reason: String::new(), reopens: false },
            Self::Ended(outcome) => Event::Ended { outcome, output: None },
        }
    }
}
