//! Which deliveries wait for each other. Pure but for the deliveries themselves.

use std::collections::{HashMap, VecDeque};

use lapin::message::Delivery;

use super::Order;
use crate::Incoming;

/// A delivery, and what it says; or why nobody can tell.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) delivery: Delivery,
    pub(super) message: Result<Incoming, String>,
    /// The line that it stands in.
    pub(super) line: Option<String>,
}

impl Arrived {
    pub(super) fn new(delivery: Delivery) -> Self {
        Self { message: Incoming::of(&delivery), delivery, line: None }
    }

    fn key(&self) -> Option<&str> {
        self.message.as_ref().ok()?.key.as_deref()
    }
}

/// One line for each key that has a message under way.
pub(super) struct Lines {
    order: Order,
    waiting: HashMap<String, VecDeque<Arrived>>,
}

impl Lines {
    pub(super) fn new(order: Order) -> Self {
        Self { order, waiting: HashMap::new() }
    }

    fn line<'a>(&self, arrived: &'a Arrived) -> Option<&'a str> {
        match self.order {
            Order::Queue => Some(""),
            Order::Key => arrived.key(),
            Order::Any => None,
        }
    }

    /// Whether somebody of its line is under way.
    pub(super) fn is_busy(&self, arrived: &Arrived) -> bool {
        self.line(arrived).is_some_and(|line| self.waiting.contains_key(line))
    }

    /// The delivery, if it need not wait.
    pub(super) fn queue(&mut self, mut arrived: Arrived) -> Option<Arrived> {
        arrived.line = self.line(&arrived).map(str::to_owned);
        let Some(line) = arrived.line.clone() else { return Some(arrived) };
        if let Some(waiting) = self.waiting.get_mut(&line) {
            waiting.push_back(arrived);
            return None;
        }
        self.waiting.insert(line, VecDeque::new());
        Some(arrived)
    }

    /// Who is next in a line whose first has been handled.
    pub(super) fn next(&mut self, line: &str) -> Option<Arrived> {
        let next = self.waiting.get_mut(line)?.pop_front();
        if next.is_none() {
            self.waiting.remove(line);
        }
        next
    }
}
