//! amends.
