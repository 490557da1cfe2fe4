//! The window of pages that were read and are not settled yet. Pure: it decides what may be published next.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use amends_postgres::cursor::{Page, Sequenced, Unpublished};
use serde::{Deserialize, Serialize};

use crate::relay::routes::Exchange;
use crate::relay::wave::Verdict;

/// Which order is kept between messages of one key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ordering {
    /// At most one unconfirmed message a key: the first delivery of each is in order, whatever the broker does.
    #[default]
    Strict,
    /// Many messages of a key are under way at once; a refused one is delivered after those behind it.
    Pipelined,
}

/// A message's place: the number of its page, and its index there.
type Place = (u64, usize);

pub(crate) struct Window {
    ordering: Ordering,
    channels: usize,
    pages: VecDeque<OpenPage>,
    first: u64,
    pending: VecDeque<Pending>,
    /// Keys with an unconfirmed message.
    busy: HashSet<Key>,
    /// Keys of which a message was refused since the window was last empty.
    blocked: HashSet<Key>,
    /// Messages that were in a wave whose channel was closed: one of them may be the cause.
    suspects: HashSet<Place>,
}

type Key = Arc<str>;

struct OpenPage {
    page: Arc<Page>,
    /// Messages without a verdict.
    undecided: usize,
    /// Why messages are not published, and whether the broker said so.
    unpublished: HashMap<usize, (bool, String)>,
}

#[derive(Clone)]
struct Pending {
    place: Place,
    key: Option<Key>,
    exchange: Exchange,
    /// The channel on which a pipelined relay publishes its key: the broker keeps the order of a channel, not that between two.
    channel: Option<usize>,
}

/// A message that is not published: its index in the page, whether the broker refused it, and why.
pub(crate) type Left = (usize, bool, String);

/// Messages that are published together, to one exchange.
pub(crate) struct Wave {
    pub(crate) exchange: Exchange,
    taken: Vec<Pending>,
    pages: Vec<(u64, Arc<Page>)>,
}

impl Wave {
    pub(crate) fn messages(&self) -> impl ExactSizeIterator<Item = &Sequenced> {
        self.taken.iter().map(|taken| {
            let (number, index) = taken.place;
            let (_, page) = self.pages.iter().find(|(at, _)| *at == number).expect("a wave keeps its pages");
            &page.messages[index]
        })
    }
}

impl Window {
    pub(crate) fn new(ordering: Ordering, channels: usize) -> Self {
        Self {
            ordering,
            channels,
            pages: VecDeque::new(),
            first: 0,
            pending: VecDeque::new(),
            busy: HashSet::new(),
            blocked: HashSet::new(),
            suspects: HashSet::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Messages that no wave has taken yet.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Adds the page that was read last. Messages of keys that are held wait with them.
    pub(crate) fn push(
        &mut self,
        page: Page,
        is_held: impl Fn(&str) -> bool,
        exchange: impl Fn(&Sequenced) -> Exchange,
    ) {
        let number = self.first + self.pages.len() as u64;
        let mut unpublished = HashMap::new();
        for (index, sequenced) in page.messages.iter().enumerate() {
            match sequenced.message.key.as_deref() {
                Some(key) if is_held(key) => {
                    unpublished.insert(index, (false, BEHIND.to_owned()));
                }
                key => self.pending.push_back(Pending {
                    place: (number, index),
                    key: key.map(Key::from),
                    exchange: exchange(sequenced),
                    channel: key.filter(|_| self.ordering == Ordering::Pipelined).map(|key| self.channel_of(key)),
                }),
            }
        }
        let undecided = page.messages.len() - unpublished.len();
        self.pages.push_back(OpenPage { page: Arc::new(page), undecided, unpublished });
    }

    fn channel_of(&self, key: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        (hasher.finish() % self.channels as u64) as usize
    }

    /// The next wave of at most `most` messages for a channel; `None` if nothing may be published there now. What goes to an
    /// exchange that is `shut`, and why it is, is left.
    pub(crate) fn next_wave(
        &mut self,
        most: usize,
        channel: usize,
        shut: impl Fn(&Exchange) -> Option<String>,
    ) -> Option<Wave> {
        let mut taken: Vec<Pending> = Vec::new();
        let mut later = VecDeque::new();
        // What is skipped stays in front, and what is of its key behind it.
        let mut skipped: HashSet<Key> = HashSet::new();
        while taken.len() < most {
            let Some(next) = self.pending.pop_front() else { break };
            if next.key.as_ref().is_some_and(|key| self.blocked.contains(key)) {
                self.leave(next.place, false, BEHIND.to_owned());
                continue;
            }
            let is_free = next.key.as_ref().is_none_or(|key| {
                let is_busy = self.ordering == Ordering::Strict && self.busy.contains(key);
                !is_busy && !skipped.contains(key)
            });
            if is_free && let Some(reason) = shut(&next.exchange) {
                self.blocked.extend(next.key);
                self.leave(next.place, false, reason);
                continue;
            }
            let is_suspect = self.suspects.contains(&next.place);
            let fits = is_free
                && next.channel.is_none_or(|own| own == channel)
                && (taken.is_empty() || (!is_suspect && taken[0].exchange == next.exchange));
            if !fits {
                skipped.extend(next.key.clone());
                later.push_back(next);
                continue;
            }
            self.busy.extend(next.key.clone());
            taken.push(next);
            if is_suspect {
                break;
            }
        }
        later.append(&mut self.pending);
        self.pending = later;
        let exchange = taken.first()?.exchange.clone();
        let mut numbers: Vec<u64> = taken.iter().map(|taken| taken.place.0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let pages = numbers.into_iter().map(|number| (number, Arc::clone(&self.open_page(number).page)));
        Some(Wave { exchange, pages: pages.collect(), taken })
    }

    /// Takes the verdicts on a wave; the answer is how many were published and why others were not.
    pub(crate) fn judge(&mut self, wave: Wave, verdicts: Vec<Verdict>) -> (usize, Vec<String>) {
        let (mut published, mut reasons) = (0, Vec::new());
        let mut again = Vec::new();
        for (taken, verdict) in wave.taken.into_iter().zip(verdicts) {
            if let Some(key) = &taken.key {
                self.busy.remove(key);
            }
            self.suspects.remove(&taken.place);
            match verdict {
                Verdict::Published => {
                    published += 1;
                    self.open_page(taken.place.0).undecided -= 1;
                }
                Verdict::Refused(reason) => {
                    self.blocked.extend(taken.key);
                    reasons.push(reason.clone());
                    self.leave(taken.place, true, reason);
                }
                Verdict::Unreachable(reason) => {
                    self.blocked.extend(taken.key);
                    self.leave(taken.place, false, reason);
                }
                Verdict::Unknown => {
                    self.suspects.insert(taken.place);
                    again.push(taken);
                }
            }
        }
        // Where the order within a key is kept by the channel, several of one key may come back: all of them, in their order.
        again.into_iter().rev().for_each(|taken| self.pending.push_front(taken));
        (published, reasons)
    }

    /// The oldest page, once every message of it has a verdict.
    pub(crate) fn settled(&mut self) -> Option<(Arc<Page>, Vec<Left>)> {
        if self.pages.front()?.undecided > 0 {
            return None;
        }
        let open = self.pages.pop_front()?;
        self.first += 1;
        if self.pages.is_empty() {
            self.blocked.clear();
        }
        let mut unpublished: Vec<_> =
            open.unpublished.into_iter().map(|(index, (refused, why))| (index, refused, why)).collect();
        unpublished.sort_unstable_by_key(|(index, ..)| *index);
        Some((open.page, unpublished))
    }

    fn leave(&mut self, (page, index): Place, refused: bool, reason: String) {
        let open = self.open_page(page);
        open.undecided -= 1;
        open.unpublished.insert(index, (refused, reason));
    }

    fn open_page(&mut self, page: u64) -> &mut OpenPage {
        &mut self.pages[(page - self.first) as usize]
    }
}

const BEHIND: &str = "behind a held message of its key";

/// The messages of a settled page that are not published, as the lane wants them.
pub(crate) fn unpublished<'a>(page: &'a Page, left: &[Left]) -> Vec<Unpublished<'a>> {
    left.iter()
        .map(|(index, refused, reason)| Unpublished {
            message: &page.messages[*index],
            refused: *refused,
            reason: amends::sanitize(reason),
        })
        .collect()
}
