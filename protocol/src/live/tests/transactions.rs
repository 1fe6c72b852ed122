//! Tests of transactions: which of them this node relays, and when.

use ledger::transaction::{Transaction, VerifiedTransaction};

use super::*;

/// Transfers of alice with these nonces, each with a memo of `memo` bytes.
pub(super) fn transfers(
    nonces: impl IntoIterator<Item = u64>,
    memo: usize,
) -> Vec<Option<Arc<VerifiedTransaction>>> {
    let alice = template_key("alice").unwrap();
    let transfer = |nonce| {
        let transfer = Transfer {
            sender: alice.public(),
            nonce: Nonce(nonce),
            outputs: vec![Output { account: alice.public(), amount: Amount(1) }],
            fee: Amount(100_000),
            expires_at: Timestamp(START + 3_600_000),
            memo: vec![7; memo],
        };
        Body::Transfer(transfer).sign(chain().id(), &alice)
    };
    verify_transactions(chain().id(), nonces.into_iter().map(transfer).collect())
}

/// Nonces of the transactions in the batches that this node sends.
fn said(effects: &[Effect]) -> Vec<u64> {
    let decode = |effect: &Effect| match effect {
        Effect::Gossip(Topic::Transactions, bytes) => {
            codec::decode::<Attempt<Vec<Transaction>>>(bytes, 1 << 16)
                .ok()
                .map(|attempt| attempt.message)
        }
        _ => None,
    };
    let nonce = |transaction: &Transaction| {
        let Body::Transfer(transfer) = &transaction.body;
        transfer.nonce.0
    };
    effects.iter().filter_map(decode).flatten().map(|transaction| nonce(&transaction)).collect()
}

impl Node {
    fn batch(&mut self, transactions: Vec<Option<Arc<VerifiedTransaction>>>) -> Verdict {
        verdict(&self.give(Input::Transactions(Ticket(1), transactions)))
    }

    fn soon(&mut self) -> Vec<Effect> {
        self.elapse(Duration::from_millis(5))
    }
}

#[test]
fn a_batch_is_passed_on_if_half_of_it_pays() {
    let mut node = Node::fresh(None);
    assert_eq!(node.batch(transfers(0..4, 0)), Verdict::Accept);
    assert_eq!(node.machine.cost().relay, 0, "all of it is new");
    assert_eq!(node.batch(transfers(0..4, 0)), Verdict::Ignore, "all of it is known");
    assert_eq!(node.machine.cost().relay, 0, "it goes nowhere");
    assert_eq!(node.batch(transfers(2..6, 0)), Verdict::Accept, "half of it is new");
    assert_eq!(node.machine.cost().relay, 1, "the other half goes on as well");
    assert_eq!(said(&node.soon()), [0; 0]);
    assert_eq!(node.batch(transfers(0..7, 0)), Verdict::Ignore, "one of seven is new");
    assert_eq!(said(&node.soon()), [6], "it goes on without the others");
    let mut forged = transfers(7..8, 0);
    forged.push(None);
    assert_eq!(node.batch(forged), Verdict::Reject);
    assert_eq!(said(&node.soon()), [7]);
}

#[test]
fn behind_a_gap_nothing_is_carried_until_the_gap_closes() {
    let mut node = Node::fresh(None);
    assert_eq!(
        node.batch(transfers(1..300, 0)),
        Verdict::Ignore,
        "it can be in no block, so it would never pay"
    );
    assert_eq!(said(&node.soon()), [0; 0]);
    let mut effects = node.give(Input::Transactions(Ticket(1), transfers(0..1, 0)));
    assert_eq!(verdict(&effects), Verdict::Accept);
    effects.extend(node.soon());
    assert_eq!(said(&effects), (1..300).collect::<Vec<_>>());

    // The same holds for transactions of this node's own users, and if a block closes the gap.
    let mut node = Node::fresh(None);
    let submit = |node: &mut Node, nonce| {
        let transaction = transfers([nonce], 0).remove(0).unwrap();
        let effects = node.give(Input::Submit(Ticket(1), transaction));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Submitted(_, Ok(())))));
    };
    submit(&mut node, 2);
    submit(&mut node, 1);
    assert_eq!(said(&node.elapse(Duration::from_secs(6))), [0; 0], "nor is it said again");
    let chain = chain();
    let proposer = chain.validators(Height(1)).proposer(Height(1), Round(0)).key;
    let first = transfers([0], 0).remove(0).unwrap();
    let parent = Certificate::genesis(chain.id());
    let block =
        node.machine.chain.state.propose(proposer, Timestamp(START + 5_000), parent, [first]);
    let certified = header(&(block.clone(), certify(&chain, &block, 1..=3)));
    node.machine.bodies.insert(block);
    node.gossip(Topic::Headers, certified);
    assert_eq!(node.tip(), 1);
    assert_eq!(said(&node.soon()), [1, 2]);
}

#[test]
fn own_transactions_leave_in_batches_and_are_said_again_until_final() {
    let verified = transfers(0..3, 0);
    let mut node = Node::fresh(None);
    let batches = |effects: &[Effect]| -> Vec<usize> {
        let decode = |effect: &Effect| match effect {
            Effect::Gossip(Topic::Transactions, bytes) => {
                codec::decode::<Attempt<Vec<ledger::transaction::Transaction>>>(bytes, 1 << 16).ok()
            }
            _ => None,
        };
        effects.iter().filter_map(decode).map(|attempt| attempt.message.len()).collect()
    };
    for transaction in verified {
        let effects = node.give(Input::Submit(Ticket(1), transaction.unwrap()));
        assert!(effects.iter().any(|effect| matches!(effect, Effect::Submitted(_, Ok(())))));
        assert_eq!(batches(&effects), [0; 0], "a batch waits a little for company");
    }
    assert_eq!(batches(&node.elapse(Duration::from_millis(5))), [3]);
    let mut again = Vec::new();
    for _ in 0..110 {
        again.extend(batches(&node.elapse(Duration::from_millis(50))));
    }
    assert_eq!(again, [3]);
    node.give(Input::Connected(PEER));
    assert_eq!(batches(&node.elapse(Duration::from_millis(400))), [0; 0]);
    node.elapse(Duration::from_millis(100));
    assert_eq!(batches(&node.elapse(Duration::from_millis(5))), [3], "a new peer hears them soon");
}
