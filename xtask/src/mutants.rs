//! Seeded bugs: shows that the tests catch each of them, which one does, and how long that takes.
//!
//! A mutant is a patch in `xtask/mutants`. It is tried in a worktree of its own, so that nobody's working tree is touched.

mod patch;
mod report;
mod tree;
mod trial;

use std::time::{Duration, Instant};

use self::patch::{Claim, Mutant};
use self::report::Row;
use self::tree::Tree;
use self::trial::{Lab, Tested};
use crate::error::{Error, Result};
use crate::services;

/// How long tests may take that are not expected to hang.
const PATIENCE: Duration = Duration::from_mins(5);

/// Tries the mutants whose file names contain one of `names`, or all, on what is committed.
///
/// # Errors
/// When the tests fail without any mutant, a patch does not apply or compile, or a mutant survives.
pub(crate) fn run(names: &[String]) -> Result<()> {
    let start = Instant::now();
    let mutants = patch::all(names)?;
    let urls = services::up()?;
    let tree = Tree::make()?;
    let lab = Lab::new(&tree, &urls);

    all_apply(&tree, &mutants)?;
    let claims = mutants.iter().flat_map(|mutant| &mutant.claims);
    for claim in patch::merge(claims) {
        healthy(&lab, &claim)?;
    }
    let healthy = start.elapsed();
    let mut rows = Vec::new();
    for mutant in &mutants {
        rows.extend(attempt(&tree, &lab, mutant)?);
    }

    println!("{}", report::table(&rows));
    let count = mutants.len();
    eprintln!("{count} mutants in {:.0?}, of which {healthy:.0?} without any", start.elapsed());
    let alive: Vec<_> = rows.iter().filter(|row| row.caught.is_err()).map(|row| row.mutant.name.as_str()).collect();
    if alive.is_empty() { Ok(()) } else { Err(Error::failed(format!("not caught: {}", alive.join(", ")))) }
}

/// Said of all at once, before anything is built.
fn all_apply(tree: &Tree, mutants: &[Mutant]) -> Result<()> {
    let mut stale = Vec::new();
    for mutant in mutants {
        if !tree.takes(mutant)? {
            stale.push(mutant.name.as_str());
        }
    }
    let stale = stale.join(", ");
    if stale.is_empty() { Ok(()) } else { Err(Error::failed(format!("do not apply and must be made anew: {stale}"))) }
}

/// A mutant that is caught by tests which fail anyway is worth nothing.
fn healthy(lab: &Lab<'_>, claim: &Claim) -> Result<()> {
    eprint!("{:<60}", format!("without: {}", claim.target.join(" ")));
    let Some(build) = lab.build(claim)? else {
        return Err(Error::failed(format!("without any mutant, `{claim}` {}", trial::NO_COMPILE)));
    };
    let (tested, time) = lab.test(claim, PATIENCE)?;
    eprintln!("build {:6.1} s, tests {:6.1} s", build.as_secs_f64(), time.as_secs_f64());
    match tested {
        Tested::Passed(tests) => match claim.missing(&tests) {
            Some(filter) => Err(Error::failed(format!("there is no test `{filter}`: {claim}"))),
            None => Ok(()),
        },
        other => Err(Error::failed(format!("without any mutant, `{claim}` {other}"))),
    }
}

/// One row for each claim that the patch makes.
fn attempt<'a>(tree: &Tree, lab: &Lab<'_>, mutant: &'a Mutant) -> Result<Vec<Row<'a>>> {
    tree.apply(mutant)?;
    let rows = mutant.claims.iter().map(|claim| challenge(lab, mutant, claim)).collect();
    tree.revert()?;
    rows
}

fn challenge<'a>(lab: &Lab<'_>, mutant: &'a Mutant, claim: &'a Claim) -> Result<Row<'a>> {
    eprint!("{:<60}", format!("{}: {}", mutant.name, claim.layer));
    let Some(build) = lab.build(claim)? else {
        eprintln!("{}", trial::NO_COMPILE);
        let caught = Err(trial::NO_COMPILE.to_owned());
        return Ok(Row { mutant, claim, caught, build: Duration::ZERO, tests: Duration::ZERO });
    };
    let (tested, tests) = lab.test(claim, mutant.hangs_after.unwrap_or(PATIENCE))?;
    let caught = match tested {
        Tested::Failed(tests) => match claim.missing(&tests) {
            Some(filter) => Err(format!("passes `{filter}`")),
            None => Ok(tests.join(", ")),
        },
        Tested::Hung if mutant.hangs_after.is_some() => Ok(format!("a timeout of {} s", tests.as_secs())),
        other => Err(other.to_string()),
    };
    let verdict = if caught.is_ok() { "caught" } else { "NOT CAUGHT" };
    eprintln!("build {:6.1} s, tests {:6.1} s, {verdict}", build.as_secs_f64(), tests.as_secs_f64());
    Ok(Row { mutant, claim, caught, build, tests })
}
