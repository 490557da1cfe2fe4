//! Which deliveries wait for each other. Pure but for the deliveries themselves.

use std::collections::{HashMap, VecDeque};

use lapin::message::Delivery;

use crate::{Incoming, Order};

/// A delivery, and what it says; or why nobody can tell.
pub(crate) struct Arrived {
    pub(crate) delivery: Delivery,
    pub(crate) message: Result<Incoming, String>,
    /// The line that it stands in.
    pub(crate) line: Option<String>,
}

impl Arrived {
    pub(crate) fn new(delivery: Delivery) -> Self {
        Self { message: Incoming::of(&delivery), delivery, line: None }
    }

    fn key(&self) -> Option<&str> {
        self.message.as_ref().ok()?.key.as_deref()
    }
}

/// One line for each key that has a message under way.
pub(crate) struct Lines {
    order: Order,
    waiting: HashMap<String, VecDeque<Arrived>>,
}

impl Lines {
    pub(crate) fn new(order: Order) -> Self {
        Self { order, waiting: HashMap::new() }
    }

    /// The delivery, if it need not wait.
    pub(crate) fn queue(&mut self, mut arrived: Arrived) -> Option<Arrived> {
        arrived.line = match self.order {
            Order::Queue => Some(String::new()),
            Order::Key => arrived.key().map(str::to_owned),
            Order::Any => None,
        };
        let Some(line) = arrived.line.clone() else { return Some(arrived) };
        if let Some(waiting) = self.waiting.get_mut(&line) {
            waiting.push_back(arrived);
            return None;
        }
        self.waiting.insert(line, VecDeque::new());
        Some(arrived)
    }

    /// Who is next in a line whose first has been handled.
    pub(crate) fn next(&mut self, line: &str) -> Option<Arrived> {
        let next = self.waiting.get_mut(line)?.pop_front();
        if next.is_none() {
            self.waiting.remove(line);
        }
        next
    }
}
