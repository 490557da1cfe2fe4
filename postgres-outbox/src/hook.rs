//! A hook before every statement of the store, for tests that kill the process between any two of them.

#[cfg(feature = "testing")]
static HOOK: std::sync::OnceLock<fn(&'static str)> = std::sync::OnceLock::new();

/// Calls `hook` with the name of every statement before it is sent. The first hook stays for the life of the process.
#[cfg(feature = "testing")]
pub fn set_hook(hook: fn(&'static str)) {
    let _ = HOOK.set(hook);
}

#[cfg(feature = "testing")]
pub(crate) fn before(statement: &'static str) {
    if let Some(hook) = HOOK.get() {
        hook(statement);
    }
}

#[cfg(not(feature = "testing"))]
#[inline(always)]
pub(crate) const fn before(_statement: &'static str) {}
