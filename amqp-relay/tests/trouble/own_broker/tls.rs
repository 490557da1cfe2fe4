//! Encrypted connections: whom they trust, who is let in, and certificates and passwords that change while a relay runs.

use std::fs;
use std::path::Path;
use std::process::Command;

use amends_relay::{Broker, RelayError, Topology};
use tokio::task::block_in_place;

use crate::support::private_broker::PrivateBroker;
use crate::support::{World, publish};

/// A certificate authority with one certificate, made by the `openssl` program; everything in one folder.
struct Authority<'a> {
    dir: &'a Path,
    name: &'a str,
}

impl<'a> Authority<'a> {
    fn create(dir: &'a Path, name: &'a str) -> Self {
        let authority = Self { dir, name };
        let subject = format!("/CN={name}");
        authority.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-subj",
            &subject,
            "-keyout",
            &authority.path("ca.key"),
            "-out",
            &authority.path("ca.pem"),
        ]);
        authority
    }

    /// A certificate for `localhost` and for clients; it has run out if `days` is not positive.
    fn issue(&self, name: &str, days: i32) {
        let (key, request) = (self.path(&format!("{name}.key")), self.path("request"));
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
        fs::write(
            self.path("extensions"),
            "subjectAltName = DNS:localhost\nextendedKeyUsage = serverAuth, clientAuth\nbasicConstraints = CA:FALSE\n",
        )
        .unwrap();
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &self.path("ca.pem"),
            "-CAkey",
            &self.path("ca.key"),
            "-CAcreateserial",
            "-extfile",
            &self.path("extensions"),
            "-days",
            &days.to_string(),
            "-out",
            &self.path(&format!("{name}.pem")),
        ]);
    }

    fn path(&self, file: &str) -> String {
        self.dir.join(format!("{}-{file}", self.name)).to_str().unwrap().to_owned()
    }

    fn openssl(&self, args: &[&str]) {
        let output = Command::new("openssl").args(args).current_dir(self.dir).output();
        let output = output.expect("the tests of TLS make certificates with the program openssl: install it");
        assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A node that listens for TLS with this certificate, and lets in only clients that have one if `mutual`.
fn start_with(broker: &mut PrivateBroker, authority: &Authority<'_>, certificate: &str, mutual: bool) {
    let (verify, fail) = if mutual { ("verify_peer", "true") } else { ("verify_none", "false") };
    broker.configure(&format!(
        "listeners.ssl.1 = 127.0.0.1:{}\n\
         ssl_options.cacertfile = {}\n\
         ssl_options.certfile = {}\n\
         ssl_options.keyfile = {}\n\
         ssl_options.verify = {verify}\n\
         ssl_options.fail_if_no_peer_cert = {fail}\n",
        broker.tls_port(),
        authority.path("ca.pem"),
        authority.path(&format!("{certificate}.pem")),
        authority.path(&format!("{certificate}.key")),
    ));
    broker.start();
}

fn at(broker: &PrivateBroker, host: &str) -> Broker {
    format!("amqps://guest:guest@{host}:{}/%2f", broker.tls_port()).parse().unwrap()
}

async fn connects(broker: &Broker) -> Result<(), RelayError> {
    Topology::default().ensure(broker).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_broker_with_the_right_certificate_is_trusted_and_the_error_says_what_is_wrong() {
    let mut broker = PrivateBroker::prepare();
    let dir = broker.path("");
    let (ours, theirs) = block_in_place(|| (Authority::create(&dir, "ours"), Authority::create(&dir, "theirs")));
    block_in_place(|| ours.issue("server", 2));
    start_with(&mut broker, &ours, "server", false);

    connects(&at(&broker, "localhost").ca_file(ours.path("ca.pem"))).await.unwrap();

    let said = async |broker: Broker| connects(&broker).await.unwrap_err().to_string();
    let unknown = said(at(&broker, "localhost").ca_file(theirs.path("ca.pem"))).await;
    assert!(unknown.contains("trusted") && unknown.contains("ca_file"), "{unknown}");
    let nobody = said(at(&broker, "localhost")).await;
    assert!(nobody.contains("trusted"), "{nobody}");
    let name = said(at(&broker, "127.0.0.1").ca_file(ours.path("ca.pem"))).await;
    assert!(name.contains("another host"), "{name}");
    let plain: Broker = format!("amqp://guest:s3cret@localhost:{}/%2f", broker.port()).parse().unwrap();
    let password = said(plain).await;
    assert!(password.contains("password") && !password.contains("s3cret"), "{password}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_wants_a_certificate_gets_one_and_lets_in_nobody_else() {
    let mut broker = PrivateBroker::prepare();
    let dir = broker.path("");
    let (ours, theirs) = block_in_place(|| (Authority::create(&dir, "ours"), Authority::create(&dir, "theirs")));
    block_in_place(|| {
        ours.issue("server", 2);
        ours.issue("client", 2);
        ours.issue("old", 0);
        theirs.issue("client", 2);
    });
    start_with(&mut broker, &ours, "server", true);
    let address = || at(&broker, "localhost").ca_file(ours.path("ca.pem"));
    let by = |from: &Authority<'_>, name: &str| {
        address().client_certificate(from.path(&format!("{name}.pem")), from.path(&format!("{name}.key")))
    };

    connects(&by(&ours, "client")).await.unwrap();

    for (who, wrong) in
        [("nobody", address()), ("a stranger", by(&theirs, "client")), ("who has run out", by(&ours, "old"))]
    {
        let said = connects(&wrong).await.unwrap_err().to_string();
        assert!(said.contains("refuses this client's certificate") && said.contains("amqp_cert_file"), "{who}: {said}");
    }

    // Another certificate in the same file counts at the next connect.
    let same = by(&ours, "old");
    for file in ["pem", "key"] {
        fs::copy(ours.path(&format!("client.{file}")), ours.path(&format!("old.{file}"))).unwrap();
    }
    connects(&same).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_goes_on_by_itself_once_a_certificate_that_has_run_out_is_replaced() {
    let mut broker = PrivateBroker::prepare();
    let dir = broker.path("");
    let authority = block_in_place(|| Authority::create(&dir, "ours"));
    block_in_place(|| {
        authority.issue("server", 0);
        authority.issue("renewed", 2);
    });
    start_with(&mut broker, &authority, "server", false);
    let address = at(&broker, "localhost").ca_file(authority.path("ca.pem"));
    let said = connects(&address).await.unwrap_err().to_string();
    assert!(said.contains("run out"), "{said}");
    let mut world = World::create_on(&broker.url()).await;
    world.broker = address;
    let queue = world.queue("all", &["#"]);
    let relay = world.relay(world.options(vec![queue.clone()]));
    publish(world.pool(), "thing.happened", "k", 1..=10).await;

    broker.stop();
    for file in ["pem", "key"] {
        fs::copy(authority.path(&format!("renewed.{file}")), authority.path(&format!("server.{file}"))).unwrap();
    }
    broker.start();

    world.reconnect(&broker.url()).await;
    let got = world.drain(&queue, 10).await;
    assert_eq!(got.iter().map(|message| message.key().1).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    relay.stop().await;
}
