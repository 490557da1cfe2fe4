//! The window of pages that were read and are not settled yet. Pure: it decides what may be published next.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use amends_postgres::cursor::{Page, Sequenced, Unpublished};
use serde::{Deserialize, Serialize};

use crate::relay::routes::Exchange;
use crate::relay::wave::{UNANSWERED, Verdict};

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
    /// What may be published next; in strict order of each key the first only.
    pending: VecDeque<Pending>,
    /// In strict order: the keys of what is pending or under way, and what waits behind it.
    lines: HashMap<Key, VecDeque<Pending>>,
    /// How many wait in lines.
    in_lines: usize,
    /// Keys of which a message was refused since the window was last empty.
    blocked: HashSet<Key>,
    /// Messages that were in a wave whose channel was closed: one of them may be the cause.
    suspects: HashSet<Place>,
}

type Key = Arc<str>;

struct OpenPage {
    page: Arc<Page>,
    bytes: usize,
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
            lines: HashMap::new(),
            in_lines: 0,
            blocked: HashSet::new(),
            suspects: HashSet::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Messages that no wave has taken yet.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len() + self.in_lines
    }

    /// How much of what may be published now falls to each of so many idle channels: waves that overlap keep the broker busy.
    pub(crate) fn share(&self, idle: usize) -> usize {
        self.pending.len().div_ceil(idle)
    }

    /// How large all messages are that are not settled yet.
    pub(crate) fn bytes(&self) -> usize {
        self.pages.iter().map(|open| open.bytes).sum()
    }

    /// Adds the page that was read last. Messages of keys that are held wait with them.
    pub(crate) fn push(
        &mut self,
        page: Page,
        is_held: impl Fn(&str) -> bool,
        mut exchange: impl FnMut(&Sequenced) -> Exchange,
    ) {
        let number = self.first + self.pages.len() as u64;
        let mut unpublished = HashMap::new();
        for (index, sequenced) in page.messages.iter().enumerate() {
            let key = sequenced.message.key.as_deref();
            if key.is_some_and(|key| is_held(key) || self.blocked.contains(key)) {
                unpublished.insert(index, (false, BEHIND.to_owned()));
                continue;
            }
            self.line_up(Pending {
                place: (number, index),
                key: key.map(Key::from),
                exchange: exchange(sequenced),
                channel: key.filter(|_| self.ordering == Ordering::Pipelined).map(|key| self.channel_of(key)),
            });
        }
        let undecided = page.messages.len() - unpublished.len();
        let bytes =
            page.messages.iter().map(|Sequenced { message, .. }| message.payload.len() + message.headers_bytes());
        let bytes = bytes.map(|bytes| bytes + OVERHEAD).sum();
        self.pages.push_back(OpenPage { page: Arc::new(page), bytes, undecided, unpublished });
    }

    fn line_up(&mut self, next: Pending) {
        if self.ordering == Ordering::Strict
            && let Some(key) = &next.key
        {
            match self.lines.entry(Arc::clone(key)) {
                Entry::Occupied(mut line) => {
                    line.get_mut().push_back(next);
                    self.in_lines += 1;
                    return;
                }
                Entry::Vacant(line) => _ = line.insert(VecDeque::new()),
            }
        }
        self.pending.push_back(next);
    }

    /// The next of a key of which one was published.
    fn go_on(&mut self, key: &Key) {
        let Some(line) = self.lines.get_mut(key) else { return };
        match line.pop_front() {
            Some(next) => {
                self.in_lines -= 1;
                self.pending.push_front(next);
            }
            None => _ = self.lines.remove(key),
        }
    }

    /// Nothing of a key is published for now.
    fn block(&mut self, key: Option<Key>) {
        let Some(key) = key else { return };
        for behind in self.lines.remove(&key).into_iter().flatten() {
            self.in_lines -= 1;
            self.leave(behind.place, false, BEHIND.to_owned());
        }
        self.blocked.insert(key);
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
        let mut later = Vec::new();
        // What is skipped stays in front, and what is of its key behind it.
        let mut skipped: HashSet<Key> = HashSet::new();
        while taken.len() < most {
            let Some(next) = self.pending.pop_front() else { break };
            if next.key.as_ref().is_some_and(|key| self.blocked.contains(key)) {
                self.leave(next.place, false, BEHIND.to_owned());
                continue;
            }
            let is_free = next.key.as_ref().is_none_or(|key| !skipped.contains(key));
            if is_free && let Some(reason) = shut(&next.exchange) {
                self.leave(next.place, false, reason);
                self.block(next.key);
                continue;
            }
            let is_suspect = self.suspects.contains(&next.place);
            let fits = is_free
                && next.channel.is_none_or(|own| own == channel)
                && (taken.is_empty() || (!is_suspect && taken[0].exchange == next.exchange));
            if !fits {
                skipped.extend(next.key.clone());
                later.push(next);
                continue;
            }
            taken.push(next);
            if is_suspect {
                break;
            }
        }
        later.into_iter().rev().for_each(|next| self.pending.push_front(next));
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
            self.suspects.remove(&taken.place);
            match verdict {
                Verdict::Published => {
                    published += 1;
                    self.open_page(taken.place.0).undecided -= 1;
                    taken.key.iter().for_each(|key| self.go_on(key));
                }
                Verdict::Refused(reason) => {
                    reasons.push(reason.clone());
                    self.leave(taken.place, true, reason);
                    self.block(taken.key);
                }
                Verdict::Unreachable(reason) => {
                    self.leave(taken.place, false, reason);
                    self.block(taken.key);
                }
                Verdict::Unanswered => {
                    self.leave(taken.place, false, UNANSWERED.to_owned());
                    self.block(taken.key);
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

/// What a message takes in memory besides.
const OVERHEAD: usize = 200;

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

#[cfg(test)]
mod tests {
    use amends::{MessageId, OutboxMessage};

    use super::*;

    fn page(keys: impl Iterator<Item = &'static str>) -> Page {
        let message = |(seq, key): (i64, &str)| Sequenced {
            seq,
            created_at: chrono::Utc::now(),
            message: OutboxMessage {
                id: MessageId::new(),
                topic: "t".into(),
                name: "t".into(),
                key: Some(key.into()),
                content_type: String::new(),
                headers: std::collections::BTreeMap::new(),
                payload: vec![0; 10],
            },
        };
        Page::of((1..).zip(keys).map(message).collect())
    }

    fn window(ordering: Ordering, keys: impl Iterator<Item = &'static str>) -> Window {
        let mut window = Window::new(ordering, 4);
        window.push(page(keys), |_| false, |_| "x".into());
        window
    }

    fn publish(window: &mut Window, channel: usize) -> Vec<i64> {
        let Some(wave) = window.next_wave(100, channel, |_| None) else { return Vec::new() };
        let seqs: Vec<i64> = wave.messages().map(|message| message.seq).collect();
        window.judge(wave, vec![Verdict::Published; seqs.len()]);
        seqs
    }

    #[test]
    fn each_wave_has_one_message_of_a_key_however_many_there_are() {
        const MANY: usize = 50_000;
        let mut window = window(Ordering::Strict, std::iter::repeat_n("hot", MANY).chain(["other"]));
        assert_eq!((window.pending(), window.bytes()), (MANY + 1, 213 * MANY + 215));
        assert_eq!(publish(&mut window, 0), [1, MANY as i64 + 1], "what is behind it is not held up");
        for seq in 2..=MANY as i64 {
            let wave = window.next_wave(100, 0, |_| None).unwrap();
            assert!(window.next_wave(100, 1, |_| None).is_none(), "one at a time");
            assert_eq!(wave.messages().map(|message| message.seq).collect::<Vec<_>>(), [seq]);
            window.judge(wave, vec![Verdict::Published]);
        }
        let (_, left) = window.settled().unwrap();
        assert!(left.is_empty() && window.is_empty() && window.pending() == 0);
    }

    #[test]
    fn what_is_behind_a_refused_message_or_for_a_shut_exchange_is_left_with_its_key() {
        let mut window = window(Ordering::Strict, ["a", "b", "a", "b"].into_iter());
        let wave = window.next_wave(100, 0, |_| None).unwrap();
        window.judge(wave, vec![Verdict::Refused("no".into()), Verdict::Published]);
        assert!(window.next_wave(100, 0, |_| Some("shut".into())).is_none());
        window.push(page(["a", "b", "c"].into_iter()), |_| false, |_| "x".into());
        assert_eq!(publish(&mut window, 0), [3]);
        let (_, left) = window.settled().unwrap();
        let reasons: Vec<_> = left.iter().map(|(index, refused, reason)| (*index, *refused, reason.as_str())).collect();
        assert_eq!(reasons, [(0, true, "no"), (2, false, BEHIND), (3, false, "shut")]);
        assert_eq!(window.settled().unwrap().1.len(), 2, "those of the next page wait with them");
    }

    #[test]
    fn a_pipelined_key_goes_by_one_channel_only() {
        let mut window = window(Ordering::Pipelined, std::iter::repeat_n("a", 10));
        let waves: Vec<_> = (0..4).filter_map(|channel| window.next_wave(3, channel, |_| None)).collect();
        assert_eq!(waves.len(), 1);
        assert_eq!(waves[0].messages().map(|message| message.seq).collect::<Vec<_>>(), [1, 2, 3]);
    }
}
