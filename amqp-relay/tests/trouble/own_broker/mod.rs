//! Trouble that others would notice: each of these tests has a broker of its own.

mod outage;
