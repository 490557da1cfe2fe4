//! Runs the model checker. `amends-postgres` and `amends-relay` check their models with it, too.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model, Path};

/// Explores every state of a model. None may violate a property. A model in which nothing happens violates nothing, so
/// there must be so many states at least, and what must be possible (`sometimes`) must be found.
#[track_caller]
pub(crate) fn holds<M>(model: M, at_least: usize)
where
    M: Model + Debug + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let (name, began) = (format!("{model:?}"), Instant::now());
    let checker = model.checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states in {:.1?}", checker.unique_state_count(), began.elapsed());
    for property in checker.model().properties() {
        let path = checker.discovery(property.name).map(Path::into_actions);
        match (property.expectation, path) {
            (Expectation::Sometimes, None) => panic!("{name}: never is it that {}", property.name),
            (Expectation::Sometimes, Some(_)) | (_, None) => {}
            (_, Some(path)) => {
                panic!("{name} violates `{}`:\n{}", property.name, path.iter().map(line).collect::<String>())
            }
        }
    }
    assert!(checker.unique_state_count() >= at_least, "only {} states", checker.unique_state_count());
}

/// The checker finds a way to violate that property.
#[track_caller]
pub(crate) fn breaks<M>(model: M, property: &'static str)
where
    M: Model + Debug + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq,
{
    let name = format!("{model:?}");
    // One thread searches breadth first, so that what is printed is about the shortest way.
    let until = HasDiscoveries::AllOf(BTreeSet::from([property]));
    let checker = model.checker().finish_when(until).spawn_bfs().join();
    let Some(path) = checker.discovery(property) else {
        panic!("{name} never violates `{property}`, in {} states", checker.unique_state_count());
    };
    // The checker goes on for a while once it has found a way, and keeps the last that it found.
    let is_right = checker.model().property(property).condition;
    let until_it_breaks = path.into_vec().into_iter().take_while(|(state, _)| is_right(checker.model(), state));
    let steps: String = until_it_breaks.filter_map(|(_, action)| action).map(|action| line(&action)).collect();
    println!("{name} violates `{property}` within {} states:\n{steps}", checker.unique_state_count());
}

fn line(action: &impl Debug) -> String {
    format!("  {action:?}\n")
}
