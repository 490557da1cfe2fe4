//! What every store must do, as tests that run on any of them.
