//! Random steps: whatever happens, every held transaction can be applied.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Admits a transaction whose nonce counts from the account's next one.
    Admit(Pay),
    /// Commits a block of the candidates, with room for this many transactions.
    Commit(usize),
    /// Commits another proposer's block, of this transaction at its account's next nonce.
    Foreign(Pay),
    /// Lets time pass, in milliseconds.
    Wait(u64),
}

fn pays() -> impl Strategy<Value = Pay> {
    let amount = prop_oneof![4 => 1u64..10_000, 1 => 1_000_000u64..BALANCE];
    let to =
        prop_oneof![4 => Just(&[1u8, 2][..]), 1 => Just(&[3u8][..]), 1 => Just(&[100u8, 2][..])];
    let fee = prop_oneof![6 => LEAST..6 * LEAST, 1 => 1_000_000u64..1_100_000];
    (
        1u8..=4,
        0u64..6,
        amount,
        to,
        fee,
        1_900u64..2_400,
        prop_oneof![3 => Just(0usize), 1 => 0usize..=256],
    )
        .prop_map(|(from, nonce, amount, to, fee, expires_at, memo)| Pay {
            from,
            nonce,
            to,
            amount,
            fee,
            expires_at,
            memo,
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => pays().prop_map(Step::Admit),
        2 => (0usize..6).prop_map(Step::Commit),
        2 => pays().prop_map(Step::Foreign),
        1 => (1u64..900).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Checks `Fixture::check` after every step.
    #[test]
    fn whatever_happens_what_is_held_can_be_applied(steps in steps()) {
        let mut fixture = Fixture::new(8);
        for step in steps {
            let place = |pay: Pay, fixture: &Fixture| {
                let nonce = fixture.chain.account(&key(pay.from)).nonce.0 + pay.nonce;
                Pay { nonce, expires_at: fixture.now + pay.expires_at, ..pay }
            };
            match step {
                Step::Admit(pay) => drop(fixture.admit(&place(pay, &fixture))),
                Step::Wait(time) => fixture.now += time,
                Step::Commit(room) => {
                    let now = Timestamp(fixture.now);
                    let candidates = fixture.mempool.candidates(&fixture.chain, now, room * SIZE);
                    let parent = Certificate::genesis(CHAIN.id());
                    let block = fixture.chain.propose(key(VALIDATOR), now, parent, candidates);
                    fixture.commit(block.block().transactions.clone());
                }
                Step::Foreign(pay) => {
                    let foreign = place(Pay { nonce: 0, ..pay }, &fixture).signed();
                    let parent = Certificate::genesis(CHAIN.id());
                    let now = Timestamp(fixture.now);
                    let block = fixture.chain.propose(key(VALIDATOR), now, parent, [foreign]);
                    fixture.commit(block.block().transactions.clone());
                }
            }
        }
    }
}
