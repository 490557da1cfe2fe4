//! Which lanes a relay takes and gives back, so that all relays have their share. Pure.

use std::collections::BTreeSet;

use amends_postgres::cursor::Layout;
use uuid::Uuid;

/// What a relay does about its lanes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Moves {
    pub(crate) take: Vec<i16>,
    pub(crate) give: Vec<i16>,
}

/// The lanes are divided evenly; the oldest relays have those that are left over. Lanes that live relays have are given back by
/// them, never taken.
pub(crate) fn moves(layout: &Layout, me: Uuid, reading: &BTreeSet<i16>) -> Moves {
    let lanes = layout.lanes.len();
    let left_over = usize::from(layout.relays.before < lanes % layout.relays.count);
    let share = if layout.paused { 0 } else { lanes / layout.relays.count + left_over };
    let free = layout.lanes.iter().filter(|view| {
        let is_free = view.owner.is_none_or(|owner| owner == me);
        is_free && !view.arrived && !reading.contains(&view.lane)
    });
    Moves {
        take: free.map(|view| view.lane).take(share.saturating_sub(reading.len())).collect(),
        give: reading.iter().rev().copied().take(reading.len().saturating_sub(share)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use amends_postgres::cursor::{LaneView, Relays};

    use super::*;

    fn layout(owners: &[Option<Uuid>], count: usize, before: usize) -> Layout {
        let view =
            |(lane, owner): (usize, &Option<Uuid>)| LaneView { lane: lane as i16, owner: *owner, arrived: false };
        let lanes = owners.iter().enumerate().map(view).collect();
        Layout { paused: false, changing: false, lanes, relays: Relays { count, before } }
    }

    #[test]
    fn relays_that_come_and_go_end_with_even_shares_that_then_stay() {
        let relays: Vec<Uuid> = (1..=4).map(Uuid::from_u128).collect();
        for lanes in 1..=9 {
            let mut owners: Vec<Option<Uuid>> = vec![None; lanes];
            for alive in [&relays[..1], &relays[..], &relays[1..3], &relays[..3]] {
                // Whoever is gone has nothing.
                for owner in &mut owners {
                    *owner = owner.filter(|owner: &Uuid| alive.contains(owner));
                }
                for _ in 0..4 {
                    for (before, me) in alive.iter().enumerate() {
                        let reading =
                            (0..lanes).filter(|lane| owners[*lane] == Some(*me)).map(|lane| lane as i16).collect();
                        let moves = moves(&layout(&owners, alive.len(), before), *me, &reading);
                        moves.give.iter().for_each(|lane| owners[*lane as usize] = None);
                        moves.take.iter().for_each(|lane| owners[*lane as usize] = Some(*me));
                    }
                }
                assert!(owners.iter().all(Option::is_some), "{lanes} lanes, {} relays: {owners:?}", alive.len());
                let counts = alive.iter().map(|me| owners.iter().filter(|owner| **owner == Some(*me)).count());
                let (least, most) = (counts.clone().min().unwrap(), counts.max().unwrap());
                assert!(most - least <= 1, "{lanes} lanes, {} relays: {owners:?}", alive.len());
            }
        }
    }

    #[test]
    fn a_relay_that_is_paused_gives_everything_back() {
        let me = Uuid::from_u128(1);
        let layout = Layout { paused: true, ..layout(&[Some(me), None], 1, 0) };
        assert_eq!(moves(&layout, me, &BTreeSet::from([0])), Moves { take: Vec::new(), give: vec![0] });
    }

    #[test]
    fn a_lane_that_has_met_the_others_is_not_taken_again() {
        let mut layout = layout(&[None, None], 1, 0);
        layout.lanes[0].arrived = true;
        assert_eq!(moves(&layout, Uuid::from_u128(1), &BTreeSet::new()).take, [1]);
    }
}
