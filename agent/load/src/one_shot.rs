//! New connections at a set rate, whatever becomes of those before.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::client::Client;
use super::http::After;
use super::pacer::{Pacer, Turn};
use super::plan::OneShot;
use super::report::Class;
use super::stop::Stop;

/// Begins requests until the end is requested, then waits for those under way.
pub(super) async fn run(client: Arc<Client>, settings: OneShot, stop: Stop) {
    let request: Arc<[u8]> = client.plan.protocol.request(After::Close).into();
    let most = client.share.part(settings.in_flight);
    let pacer = Arc::new(Pacer::new(client.schedule(settings.rate), Turn::Least));
    let mut clients = JoinSet::new();
    let paced = pacer.run(stop, |lack| {
        let room = most - clients.len();
        // Not all at once: those that are at work have to go on meanwhile.
        let new = usize::try_from(lack.clients).unwrap_or(room).min(room).min(BATCH);
        for _ in 0..new {
            let one =
                one_after_the_other(Arc::clone(&client), Arc::clone(&pacer), Arc::clone(&request));
            clients.spawn(one);
        }
    });
    client.recorder.paced(Class::OneShot, paced.await);
    while let Some(ended) = clients.join_next().await {
        client.recorder.ended(ended);
    }
}

/// A client that connects anew for each request.
async fn one_after_the_other(client: Arc<Client>, pacer: Arc<Pacer>, request: Arc<[u8]>) {
    let mut kit = client.kit();
    while let Some(intended) = pacer.next().await {
        client.recorder.begun(Class::OneShot, intended);
        let exchange = async {
            let mut connection = client.connect(Class::OneShot, intended, None, &mut kit).await?;
            let asked = client.ask(&mut connection, &request, intended, &mut kit.patience).await;
            kit.received = connection.received;
            asked
        };
        if let Err(failure) = exchange.await {
            client.recorder.failed(Class::OneShot, failure);
        }
    }
}

const BATCH: usize = 64;
