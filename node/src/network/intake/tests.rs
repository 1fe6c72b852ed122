#![allow(clippy::unwrap_used)]

use tokio::sync::oneshot::error::TryRecvError;

use super::*;

const FLOOR: usize = 100;

fn intake() -> Intake {
    let share = Share { all: 1_000, floor: FLOOR };
    Intake::new(Limits {
        begins: None,
        stall: Duration::from_secs(20),
        rate: 10,
        share,
        waits: true,
    })
}

/// A frame that gets room for all of its bytes at once. `None` if there is no room.
fn whole(
    source: &Source,
    length: usize,
    now: Instant,
) -> Option<(Arrival, oneshot::Receiver<Infallible>)> {
    let (mut arrival, given_up) = source.arrival(length);
    arrival.make_room(length, now).then_some((arrival, given_up))
}

fn gave_way(given_up: &mut oneshot::Receiver<Infallible>) -> bool {
    given_up.try_recv() == Err(TryRecvError::Closed)
}

#[test]
fn the_slowest_gives_way_but_neither_a_new_frame_nor_a_complete_one() {
    let (intake, start) = (intake(), Instant::now());
    let (mut first, mut first_given_up) = whole(&intake.source(), 300, start).unwrap();
    let (second, mut second_given_up) = whole(&intake.source(), 300, start).unwrap();
    let (complete, mut complete_given_up) = whole(&intake.source(), 300, start).unwrap();
    first.received.store(20, Ordering::Relaxed);
    second.received.store(10, Ordering::Relaxed);
    complete.on_complete();
    assert!(whole(&intake.source(), 300, start).is_none(), "nobody is known to be slow yet");
    assert!(whole(&intake.source(), 701, start + GRACE).is_none(), "not even two would be enough");
    assert!(!gave_way(&mut first_given_up) && !gave_way(&mut second_given_up));

    let (_new, mut new_given_up) = whole(&intake.source(), 300, start + GRACE).unwrap();
    assert!(gave_way(&mut second_given_up));
    assert!(first.make_room(300, start + GRACE) && !gave_way(&mut first_given_up));
    let (_other, _) = whole(&intake.source(), 300, start + GRACE).unwrap();
    assert!(gave_way(&mut first_given_up));
    assert!(whole(&intake.source(), 300, start + GRACE).is_none());
    assert!(!gave_way(&mut complete_given_up) && !gave_way(&mut new_given_up));
    assert_eq!(intake.total(), 900);
    drop((first, second));
    assert_eq!(intake.total(), 900, "the room of a frame that gave way is free at once");
}

#[test]
fn bytes_before_the_claim_do_not_make_a_frame_fast() {
    let (intake, start) = (intake(), Instant::now());
    let [(burst, mut burst_given_up), (steady, mut steady_given_up)] = [90, 0].map(|before| {
        let (mut arrival, given_up) = intake.source().arrival(500);
        arrival.received.store(before, Ordering::Relaxed);
        assert!(arrival.make_room(500, start));
        (arrival, given_up)
    });
    steady.received.store(50, Ordering::Relaxed);
    let _new = whole(&intake.source(), 500, start + GRACE).unwrap();
    assert!(gave_way(&mut burst_given_up) && !gave_way(&mut steady_given_up));
    drop(burst);
}

#[test]
fn one_source_may_claim_half_of_what_the_others_leave() {
    let (intake, now) = (intake(), Instant::now());
    let [one, other] = [intake.source(), intake.source()];
    // The source of a frame, the frame's length, and whether there is room for it.
    let cases = [
        (&one, 101, true),
        (&one, 400, false),
        (&one, 399, true),
        (&one, 100, true),
        (&one, 1, false),
        (&other, 500, true),
        (&other, 101, false),
        (&other, 100, true),
        (&other, 1, false),
    ];
    let mut frames = Vec::new();
    for (number, (source, length, has_room)) in cases.into_iter().enumerate() {
        let frame = whole(source, length, now);
        assert_eq!(frame.is_some(), has_room, "case {number}");
        frames.extend(frame);
    }
    assert_eq!(intake.total(), 1_000 + 2 * FLOOR);
    drop(frames);
    assert!(intake.total() == 0 && intake.lock().sources.is_empty());
}

/// Frames grow step by step. Once a frame has a claim, its part of the floor is free again.
#[test]
fn many_sources_stay_within_all_and_their_floors() {
    let (intake, now) = (intake(), Instant::now());
    let mut frames = Vec::new();
    for _ in 0..100 {
        let source = intake.source();
        for _ in 0..4 {
            let (mut arrival, given_up) = source.arrival(300);
            let most =
                (10..=300).step_by(10).take_while(|bytes| arrival.make_room(*bytes, now)).last();
            frames.push((arrival, given_up, most));
        }
        assert!(
            frames.iter().rev().take(4).any(|(_, _, most)| most.is_some()),
            "each has some room"
        );
    }
    let total = intake.total();
    assert!((900 + 99 * FLOOR..=1_000 + 100 * FLOOR).contains(&total), "{total}");
    drop(frames);
    assert!(
        intake.total() == 0 && intake.lock().sources.is_empty() && intake.lock().claims.is_empty()
    );
}
