//! Numbers by which the shell and the state machines name peers, requests and things to be reminded of.

/// A connected peer, as the shell numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

/// A request this node made. Exactly one [`Input::Response`](crate::Input::Response) answers it, with nothing if it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What the shell wants to be reminded of: a gossip message to judge, a request to answer, a submission to confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);
