//! Numbers that name peers, requests and tickets between the shell and the state machines.

/// A connected peer. The shell gives out the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// A request of this node. Exactly one [`Input::Response`](crate::Input::Response) answers it; the
/// response is `None` if the request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Names an input to which the shell needs an answer: a gossip message to judge, a request to
/// answer, or a submission to confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);
