//! The window of pages that were read and are not settled yet. Pure: it decides what may be published next.

use std::collections::{HashMap, HashSet, VecDeque};

use amends_postgres::cursor::{Page, Sequenced, Unpublished};
use serde::{Deserialize, Serialize};

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
    pages: VecDeque<OpenPage>,
    first: u64,
    pending: VecDeque<Place>,
    /// Keys with an unconfirmed message.
    busy: HashSet<String>,
    /// Keys of which a message was refused since the window was last empty.
    blocked: HashSet<String>,
}

struct OpenPage {
    page: Page,
    /// Messages without a verdict.
    undecided: usize,
    /// Why messages are not published, and whether the broker said so.
    unpublished: HashMap<usize, (bool, String)>,
}

/// A message that is not published: its index in the page, whether the broker refused it, and why.
pub(crate) type Left = (usize, bool, String);

/// Messages that are published together.
pub(crate) struct Wave {
    places: Vec<Place>,
}

impl Window {
    pub(crate) fn new(ordering: Ordering) -> Self {
        Self {
            ordering,
            pages: VecDeque::new(),
            first: 0,
            pending: VecDeque::new(),
            busy: HashSet::new(),
            blocked: HashSet::new(),
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
    pub(crate) fn push(&mut self, page: Page, is_held: impl Fn(&str) -> bool) {
        let number = self.first + self.pages.len() as u64;
        let mut unpublished = HashMap::new();
        for (index, sequenced) in page.messages.iter().enumerate() {
            match sequenced.message.key.as_deref() {
                Some(key) if is_held(key) => {
                    unpublished.insert(index, (false, BEHIND.to_owned()));
                }
                _ => self.pending.push_back((number, index)),
            }
        }
        let undecided = page.messages.len() - unpublished.len();
        self.pages.push_back(OpenPage { page, undecided, unpublished });
    }

    /// The next wave of at most `most` messages; `None` if nothing may be published now.
    pub(crate) fn next_wave(&mut self, most: usize) -> Option<Wave> {
        let mut places = Vec::new();
        let mut later = VecDeque::new();
        while places.len() < most {
            let Some(place) = self.pending.pop_front() else { break };
            let key = self.message(place).message.key.clone();
            match key {
                Some(key) if self.blocked.contains(&key) => self.leave(place, false, BEHIND.to_owned()),
                Some(key) if self.ordering == Ordering::Strict => {
                    // What is skipped here stays in front, so that the order within its key is kept.
                    if self.busy.insert(key) { places.push(place) } else { later.push_back(place) }
                }
                _ => places.push(place),
            }
        }
        later.append(&mut self.pending);
        self.pending = later;
        (!places.is_empty()).then_some(Wave { places })
    }

    pub(crate) fn messages<'a>(&'a self, wave: &'a Wave) -> impl Iterator<Item = &'a Sequenced> {
        wave.places.iter().map(|&place| self.message(place))
    }

    /// Takes the verdicts on a wave; the answer is how many were published and why others were not.
    pub(crate) fn judge(&mut self, wave: &Wave, verdicts: Vec<Verdict>) -> (usize, Vec<String>) {
        let (mut published, mut reasons) = (0, Vec::new());
        for (&place, verdict) in wave.places.iter().zip(verdicts) {
            let key = self.message(place).message.key.clone();
            if let Some(key) = &key {
                self.busy.remove(key);
            }
            match verdict {
                Verdict::Published => {
                    published += 1;
                    self.open_page(place.0).undecided -= 1;
                }
                Verdict::Refused(reason) => {
                    self.blocked.extend(key);
                    reasons.push(reason.clone());
                    self.leave(place, true, reason);
                }
            }
        }
        (published, reasons)
    }

    /// The oldest page, once every message of it has a verdict.
    pub(crate) fn settled(&mut self) -> Option<(Page, Vec<Left>)> {
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

    fn message(&self, (page, index): Place) -> &Sequenced {
        &self.pages[(page - self.first) as usize].page.messages[index]
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
