//! Tests for sagas, and for the stores that keep them. With the feature `testing`; no server is needed.

pub mod conformance;
