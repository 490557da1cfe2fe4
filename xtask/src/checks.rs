//! Every check that CI runs.

use crate::error::Result;

/// todo
pub(crate) fn run(_args: &[String]) -> Result<()> {
    Ok(())
}
