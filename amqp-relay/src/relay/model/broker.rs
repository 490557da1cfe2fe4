//! The broker, and what a relay makes of its confirms.

use std::collections::HashMap;

use lapin::message::{BasicReturnMessage, Delivery};
use lapin::{BasicProperties, Confirmation};

use super::outbox::message;
use super::relays::Mistake;
use crate::relay::wave::{Verdict, decide};

/// Messages on one channel, in order, of which the broker has answered the first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Flight {
    /// Which wave of the window; `None` if they are held ones.
    pub(super) wave: Option<usize>,
    pub(super) channel: usize,
    pub(super) seqs: Vec<i64>,
    pub(super) answers: Vec<Answer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    /// It is in a queue.
    Ack,
    /// It is in none.
    Nack,
    /// It is in none, since none is bound for it. It is acked as well.
    Return,
}

impl Flight {
    pub(super) fn is_answered(&self) -> bool {
        self.seqs.len() == self.answers.len()
    }

    /// Which messages were published, as the relay sees it.
    pub(super) fn verdicts(&self, keys: &str, mistake: Option<Mistake>) -> Vec<bool> {
        let returned = |index: usize| {
            let is_heard = self.answers[index] == Answer::Return && mistake != Some(Mistake::IgnoresReturns);
            is_heard.then(|| back(&message(keys, self.seqs[index]).message.id.to_string()))
        };
        // lapin attaches a returned message to the wrong confirm now and then: here always to the next one.
        let carried = |index: usize| returned((index + self.seqs.len() - 1) % self.seqs.len());
        let confirm = |index: usize| match self.answers[index] {
            Answer::Nack if mistake != Some(Mistake::TakesNacksForAcks) => Confirmation::Nack(carried(index)),
            _ => Confirmation::Ack(carried(index)),
        };
        if mistake == Some(Mistake::TrustsTheConfirm) {
            return (0..self.seqs.len()).map(|index| confirm(index) == Confirmation::Ack(None)).collect();
        }
        let messages: Vec<_> = self.seqs.iter().map(|seq| message(keys, *seq)).collect();
        let confirms = (0..self.seqs.len()).map(|index| (index, Ok(confirm(index)))).collect();
        let verdicts = decide(&messages.iter().collect::<Vec<_>>(), confirms, HashMap::new()).unwrap();
        verdicts.iter().map(|verdict| *verdict == Verdict::Published).collect()
    }
}

fn back(id: &str) -> BasicReturnMessage {
    let mut delivery = Delivery::mock(0, "e".into(), "t".into(), false, Vec::new());
    delivery.properties = BasicProperties::default().with_message_id(id.into());
    BasicReturnMessage { delivery, reply_code: 312, reply_text: "NO_ROUTE".into() }
}
