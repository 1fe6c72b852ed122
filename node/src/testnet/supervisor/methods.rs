//! The methods of the network's socket: `testnet_ls`, one for each action, and two for the load.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;
use tokio::sync::mpsc;

use super::super::action::Action;
use super::member::Reply;
use super::payments::Question;
use super::{Order, Request};
use crate::control::{self, Answer, Failure, Listener};

/// Serves the network's socket until `stop` resolves. Then the socket's file is gone.
pub(in crate::testnet) async fn serve(
    listener: Listener,
    orders: mpsc::Sender<Order>,
    stop: impl Future<Output = ()>,
) {
    control::serve(listener, Arc::new(Methods(orders)), stop).await;
}

/// Performs the actions of a screen, and shows why one failed. Ends with the screen.
pub(in crate::testnet) async fn perform(
    mut actions: mpsc::Receiver<Action>,
    orders: mpsc::Sender<Order>,
) {
    while let Some(action) = actions.recv().await {
        let orders = orders.clone();
        tokio::spawn(async move {
            let text = action.to_string();
            if let Err(failure) = call(&orders, Request::Act(action)).await {
                let note = Request::Note(format!("{text}: {failure}"));
                let _stopped = call(&orders, note).await;
            }
        });
    }
}

struct Methods(mpsc::Sender<Order>);

impl control::Methods for Methods {
    fn call(&self, method: &str, params: Value) -> Answer {
        let request = match method {
            "testnet_ls" => Ok(Request::List),
            "testnet_load_figures" => Ok(Request::Load(Question::Figures)),
            "testnet_load_rest" => params["after_ms"]
                .as_u64()
                .map(|ms| Request::Load(Question::Rest(Duration::from_millis(ms))))
                .ok_or_else(|| Failure::bad_params("after_ms: expected milliseconds")),
            _ => match Action::from_call(method, params) {
                None => Err(Failure::unknown_method(method)),
                Some(Err(error)) => Err(Failure::bad_params(error)),
                Some(Ok(action)) => Ok(Request::Act(action)),
            },
        };
        let orders = self.0.clone();
        async move { call(&orders, request?).await }.boxed()
    }
}

async fn call(orders: &mpsc::Sender<Order>, request: Request) -> Result<Value, Failure> {
    let is_stop = matches!(request, Request::Act(Action::Stop));
    let (reply, answer) = Reply::channel();
    if orders.send(Order { request, reply }).await.is_ok()
        && let Ok(answer) = answer.await
    {
        return answer;
    }
    // The network stops, as `stop` asks.
    if is_stop { Ok(Value::Null) } else { Err(Failure::failed("the network stops")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_network_that_stops_takes_no_order_but_another_stop() {
        let (orders, received) = mpsc::channel(1);
        drop(received);
        assert_eq!(call(&orders, Request::Act(Action::Stop)).await, Ok(Value::Null));
        let refused = call(&orders, Request::Act(Action::Heal)).await.unwrap_err();
        assert_eq!(refused.message, "the network stops");
    }
}
