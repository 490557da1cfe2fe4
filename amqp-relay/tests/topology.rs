//! Exchanges, queues and bindings are what the settings say; where they are not, it is said of which, and what helps.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use amends_relay::{
    Binding, Checked, ExchangeKind, ExchangeTopology, Match, Overflow, QueueKind, QueueTopology, RelayError, Topology,
    TopologyMode,
};
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, LongString};
use support::{World, eventually, publish};

/// What came of everything, by name.
async fn report(topology: &Topology, mode: TopologyMode) -> Vec<(String, Result<Checked, RelayError>)> {
    let topology = Topology { mode, ..topology.clone() };
    let outcomes = topology.report(&World::url()).await.unwrap();
    outcomes.into_iter().map(|outcome| (outcome.item, outcome.result)).collect()
}

async fn send(world: &World, exchange: &str, key: &str, headers: &[(&str, &str)]) {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert((*name).into(), AMQPValue::LongString(LongString::from(*value)));
    }
    let properties = BasicProperties::default().with_headers(table);
    let options = BasicPublishOptions::default();
    world.channel.basic_publish(exchange.into(), key.into(), options, b"x", properties).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_exchange_and_binding_routes_as_it_is_declared() {
    let mut world = World::create().await;
    let name = |suffix: &str| format!("{}-{suffix}", world.name);
    let (topic, direct, fanout, headers, lost) = (name("t"), name("d"), name("f"), name("h"), name("lost"));
    let from = |exchange: &str, patterns: &[&str]| Binding {
        exchange: exchange.to_owned(),
        patterns: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
        ..Binding::default()
    };
    let topology = Topology {
        exchanges: vec![
            ExchangeTopology { alternate_exchange: Some(lost.clone()), ..topic.as_str().into() },
            ExchangeTopology::new(&direct, ExchangeKind::Direct),
            // Hears of what the topic exchange has for `copy.*`.
            ExchangeTopology {
                internal: true,
                bindings: vec![from(&topic, &["copy.*"])],
                ..ExchangeTopology::new(&fanout, ExchangeKind::Fanout)
            },
            ExchangeTopology::new(&headers, ExchangeKind::Headers),
            ExchangeTopology::new(&lost, ExchangeKind::Fanout),
        ],
        queues: vec![
            QueueTopology { exchange: direct.clone(), ..world.queue("direct", &["one", "two"]) },
            QueueTopology { exchange: fanout.clone(), ..world.queue("fanout", &[]) },
            QueueTopology { exchange: lost.clone(), ..world.queue("lost-queue", &[]) },
            QueueTopology {
                exchange: String::new(),
                bindings: vec![Binding {
                    exchange: headers.clone(),
                    headers: [("region".into(), "eu".into()), ("urgent".into(), "yes".into())].into(),
                    matching: Match::Any,
                    ..Binding::default()
                }],
                ..world.queue("headers", &[])
            },
        ],
        mode: TopologyMode::Declare,
    };

    // Twice, as at every connection.
    for _ in 0..2 {
        for (item, result) in report(&topology, TopologyMode::Declare).await {
            assert!(matches!(result, Ok(Checked::Declared)), "{item}: {result:?}");
        }
    }

    send(&world, &direct, "one", &[]).await;
    send(&world, &direct, "three", &[]).await;
    send(&world, &topic, "copy.this", &[]).await;
    send(&world, &topic, "nowhere", &[]).await;
    send(&world, &headers, "", &[("urgent", "yes")]).await;
    send(&world, &headers, "", &[("urgent", "no")]).await;
    for queue in &topology.queues {
        assert_eq!(world.take_all(&queue.name).await.len(), 1, "{} gets what is for it, and that alone", queue.name);
    }
    for exchange in topology.exchanges {
        world.also_delete_exchange(exchange.name);
    }
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_declared_with_everything_that_the_settings_say_of_it() {
    let mut world = World::create().await;
    let quorum = QueueTopology {
        kind: QueueKind::Quorum,
        delivery_limit: Some(3),
        max_length: Some(100),
        overflow: Some(Overflow::RejectPublish),
        dead_letter_exchange: Some(format!("{}-dead", world.name)),
        single_active_consumer: true,
        ..world.queue("quorum", &["#"])
    };
    let short_lived = QueueTopology { message_ttl_seconds: Some(1), ..world.queue("brief", &["brief.#"]) };
    let topology = Topology { queues: vec![quorum.clone(), short_lived.clone()], ..Topology::default() };
    topology.ensure(&World::url()).await.unwrap();

    send(&world, &world.name, "brief.one", &[]).await;
    world.until_empty(&short_lived.name).await;
    for (changed, argument) in [
        (QueueTopology { delivery_limit: Some(4), ..quorum.clone() }, "x-delivery-limit"),
        (QueueTopology { max_length: None, ..quorum.clone() }, "x-max-length"),
        (QueueTopology { overflow: None, ..quorum.clone() }, "x-overflow"),
        (QueueTopology { single_active_consumer: false, ..quorum.clone() }, "x-single-active-consumer"),
        (QueueTopology { kind: QueueKind::Classic, delivery_limit: None, ..quorum.clone() }, "x-queue-type"),
    ] {
        let refused = Topology { queues: vec![changed], ..topology.clone() }.ensure(&World::url()).await.unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, RelayError::Topology { .. }) && text.contains(argument), "{argument}: {text}");
    }
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_queue_with_other_arguments_it_is_said_which_and_what_helps_and_the_rest_is_declared() {
    let mut world = World::create().await;
    let (old, other) = (world.queue("old", &["#"]), world.queue("other", &["#"]));
    let topology = Topology { queues: vec![old.clone()], ..Topology::default() };
    topology.ensure(&World::url()).await.unwrap();

    let changed = QueueTopology { max_length: Some(10), ..old.clone() };
    let topology = Topology { queues: vec![changed, other.clone()], ..topology };
    let outcomes = report(&topology, TopologyMode::Declare).await;

    let wrong: Vec<_> = outcomes.iter().filter_map(|(_, result)| result.as_ref().err()).collect();
    let [wrong] = wrong[..] else { panic!("{outcomes:?}") };
    let text = wrong.to_string();
    for needle in [&*old.name, "x-max-length", "wanted", "= 10", "change the settings", "delete it"] {
        assert!(text.contains(needle), "should say `{needle}`: {text}");
    }
    assert!(world.take_all(&other.name).await.is_empty(), "the other queue is there");
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_what_is_missing_creates_nothing_and_says_what_it_cannot_see() {
    let mut world = World::create().await;
    let (there, missing) = (world.queue("there", &["#"]), world.queue("missing", &["#"]));
    let topology = Topology { queues: vec![there.clone()], ..Topology::default() };
    topology.ensure(&World::url()).await.unwrap();

    let topology = Topology { queues: vec![there.clone(), missing.clone()], ..topology };
    for _ in 0..2 {
        for (item, result) in report(&topology, TopologyMode::Verify).await {
            match result {
                Ok(Checked::Unseen) => assert!(item.contains("binding"), "{item}"),
                Ok(checked) => {
                    assert!(checked == Checked::Exists && !item.contains(&missing.name), "{item}: {checked}");
                }
                Err(error) => {
                    assert_eq!(item, format!("the queue `{}`", missing.name));
                    assert!(error.to_string().contains("topology = \"declare\""), "{error}");
                }
            }
        }
    }
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_verifies_publishes_once_somebody_has_created_what_it_needs() {
    let mut world = World::create().await;
    let queue = world.queue("all", &["#"]);
    let mut options = world.options(vec![queue.clone()]);
    options.topology.mode = TopologyMode::Verify;
    options.replies = None;
    let declared = Topology { mode: TopologyMode::Declare, ..options.topology.clone() };
    let relay = world.relay(options);
    publish(world.pool(), "thing.happened", "k", 1..=3).await;
    eventually("it says what is missing", || {
        relay.relay.state().trouble().is_some_and(|trouble| trouble.to_string().contains("create what is missing"))
    })
    .await;

    declared.ensure(&World::url()).await.unwrap();

    let got = world.drain(&queue, 3).await;
    assert_eq!(got.iter().map(|message| message.key().1).collect::<Vec<_>>(), [1, 2, 3]);
    relay.stop().await;
    world.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_of_exchange_that_needs_a_plugin_is_named() {
    let world = World::create().await;
    let delayed = ExchangeTopology {
        arguments: [("x-delayed-type".into(), "topic".into())].into(),
        ..ExchangeTopology::new(format!("{}-x", world.name), ExchangeKind::Plugin("x-no-such-kind".into()))
    };
    let topology = Topology { exchanges: vec![delayed, world.name.as_str().into()], ..Topology::default() };
    let outcomes = report(&topology, TopologyMode::Declare).await;
    let text = outcomes[0].1.as_ref().unwrap_err().to_string();
    assert!(text.contains("x-no-such-kind") && text.contains("plugin"), "{text}");
    assert!(outcomes[1].1.is_ok(), "although the broker has closed the connection for the first");
    world.clean_up().await;
}

/// The binary with these settings, on the broker that the tests share.
fn amends_relay(world: &World, args: &[&str], settings: &str) -> std::process::Output {
    let file = std::env::temp_dir().join(format!("{}.toml", world.name));
    std::fs::write(&file, settings).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_amends-relay"))
        .args(args)
        .args(["--config", file.to_str().unwrap(), "--exchange", &world.name, "--listen", "127.0.0.1:0"])
        .args(["--reply-queue", &format!("{}-replies", world.name)])
        .env("DATABASE_URL", world.database.url())
        .env("AMQP_URL", support::amqp_url())
        .output()
        .unwrap();
    std::fs::remove_file(file).unwrap();
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binary_tells_of_each_thing_of_its_settings_how_it_stands() {
    let mut world = World::create().await;
    let queue = world.queue("stock", &[]);
    let settings = format!("[[queues]]\nname = '{}'\npatterns = ['stock.*']\nmax_length = 5\n", queue.name);
    let text = |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();

    let before = amends_relay(&world, &["topology"], &settings);
    assert_eq!(before.status.code(), Some(1));
    assert!(text(&before).contains(&format!("WRONG  the queue `{}`", queue.name)), "{}", text(&before));
    let run = amends_relay(&world, &["run", "--topology", "verify"], &settings);
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.code() == Some(1) && said.trim_end().lines().count() == 1, "{said}");
    assert!(said.contains(&world.name) && said.contains("declare"), "{said}");

    let declared = amends_relay(&world, &["topology", "--declare"], &settings);
    assert!(declared.status.success() && !text(&declared).contains("WRONG"), "{}", text(&declared));
    let after = amends_relay(&world, &["topology"], &settings);
    assert!(after.status.success() && text(&after).contains(&format!("ok     the queue `{}`: exists", queue.name)));
    send(&world, &world.name, "stock.low", &[]).await;
    assert_eq!(world.take_all(&queue.name).await.len(), 1, "a queue without an exchange is bound to the relay's");
    world.clean_up().await;
}
