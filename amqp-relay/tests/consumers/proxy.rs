//! Stands between a consumer and the broker, to cut the connection and to put words in the consumer's mouth.

use amends_relay::Broker;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use url::Url;

use crate::support::amqp_url;

#[derive(Debug, Clone)]
enum Order {
    Cut,
    Say(Vec<u8>),
}

pub(crate) struct Proxy {
    url: Url,
    orders: broadcast::Sender<Order>,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        let mut url = Url::parse(&amqp_url()).unwrap();
        let broker = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5672));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
        let (orders, _) = broadcast::channel(10);
        let of_each = orders.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let broker = TcpStream::connect(&broker).await.unwrap();
                let orders = of_each.subscribe();
                let ((from_client, mut to_client), (mut from_broker, mut to_broker)) =
                    (client.into_split(), broker.into_split());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = copy(&mut from_broker, &mut to_client) => {}
                        _ = relay_frames(from_client, &mut to_broker, orders) => {}
                    }
                });
            }
        });
        Self { url, orders }
    }

    pub(crate) fn url(&self) -> Broker {
        self.url.as_str().parse().unwrap()
    }

    /// A connection with a first channel.
    pub(crate) async fn connect(&self) -> (Connection, Channel) {
        let connection = Connection::connect(self.url.as_str(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    }

    /// Cuts every connection that there is.
    pub(crate) fn cut(&self) {
        let _ = self.orders.send(Order::Cut);
    }

    /// Acknowledges on the first channel what was never delivered. The broker closes the channel with 406, as it does when
    /// an acknowledgement takes longer than its `consumer_timeout`.
    pub(crate) fn acknowledge_what_was_never_delivered(&self) {
        let acknowledge = [&[0, 60, 0, 80], &u64::MAX.to_be_bytes()[..], &[0]].concat();
        self.orders.send(Order::Say(frame(1, &acknowledge))).unwrap();
    }

    /// Publishes on the first channel what no client library would: a message whose type is no text.
    pub(crate) fn publish_what_is_no_text(&self, exchange: &str) {
        let name = [&[u8::try_from(exchange.len()).unwrap()], exchange.as_bytes()].concat();
        let publish = [&[0, 60, 0, 40, 0, 0], &name[..], &[1, b't', 0]].concat();
        let (has_type, two_bytes) = ([0, 1 << 5], [2, 0xFF, 0xFE]);
        let header = [&[0, 60, 0, 0], &1_u64.to_be_bytes()[..], &has_type, &two_bytes].concat();
        self.orders.send(Order::Say([frame(1, &publish), frame(2, &header), frame(3, b"?")].concat())).unwrap();
    }
}

/// On the first channel.
fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[kind, 0, 1], &size[..], content, &[0xCE]].concat()
}

/// From the client to the broker, frame by frame, so that others fit between them.
async fn relay_frames(
    mut client: OwnedReadHalf,
    broker: &mut OwnedWriteHalf,
    mut orders: broadcast::Receiver<Order>,
) -> std::io::Result<()> {
    let mut greeting = [0; 8];
    client.read_exact(&mut greeting).await?;
    broker.write_all(&greeting).await?;
    let (frames, mut next) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let mut frame = vec![0; 7];
            client.read_exact(&mut frame).await?;
            let size = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]) as usize;
            frame.resize(7 + size + 1, 0);
            client.read_exact(&mut frame[7..]).await?;
            if frames.send(frame).await.is_err() {
                return Ok::<_, std::io::Error>(());
            }
        }
    });
    loop {
        let frame = tokio::select! {
            order = orders.recv() => match order {
                Ok(Order::Say(frame)) => frame,
                _ => return Ok(()),
            },
            frame = next.recv() => match frame {
                Some(frame) => frame,
                None => return Ok(()),
            },
        };
        broker.write_all(&frame).await?;
    }
}
