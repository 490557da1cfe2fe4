//! Users and passwords change, and permissions are taken away, while a relay runs.

use std::fs;

use amends_relay::{Broker, QueueKind};

use super::Scene;
use crate::support::eventually;

/// A relay whose user and password are in files.
async fn scene_with_files() -> Scene {
    let mut scene = Scene::set(QueueKind::Classic).await;
    allow(&scene, "amends", "old");
    let address: Broker = format!("amqp://127.0.0.1:{}/%2f", scene.broker.port()).parse().unwrap();
    scene.world.broker =
        address.username_file(scene.broker.path("username")).password_file(scene.broker.path("password"));
    scene
}

/// Adds a user, and writes who it is to the files.
fn allow(scene: &Scene, user: &str, password: &str) {
    scene.broker.ctl(&["add_user", user, password]);
    scene.broker.ctl(&["set_permissions", user, ".*", ".*", ".*"]);
    write_files(scene, user, password);
}

fn write_files(scene: &Scene, user: &str, password: &str) {
    fs::write(scene.broker.path("username"), format!("{user}\n")).unwrap();
    fs::write(scene.broker.path("password"), format!("{password}\n")).unwrap();
}

fn was_refused(scene: &Scene) -> bool {
    fs::read_to_string(scene.broker.path("log")).unwrap().contains("invalid credentials")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_password_is_taken_from_its_file_without_a_restart() {
    let mut scene = scene_with_files().await;
    let relay = scene.relay();
    scene.write(1..=20).done().await;

    scene.broker.ctl(&["change_password", "amends", "new"]);
    scene.broker.ctl(&["close_all_connections", "the password was changed"]);
    scene.write(21..=40).done().await;
    eventually("the old password is refused", || was_refused(&scene)).await;
    write_files(&scene, "amends", "new");

    scene.assert_all_came(40).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_whose_user_is_deleted_goes_on_as_the_one_who_is_in_the_files_by_then() {
    let mut scene = scene_with_files().await;
    let relay = scene.relay();
    scene.write(1..=20).done().await;

    // The broker closes the connections of a user who is deleted.
    scene.broker.ctl(&["delete_user", "amends"]);
    scene.write(21..=40).done().await;
    eventually("the user is refused", || was_refused(&scene)).await;
    allow(&scene, "successor", "other");

    scene.assert_all_came(40).await;
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_may_not_write_any_more_loses_nothing_and_goes_on_once_it_may_again() {
    let mut scene = scene_with_files().await;
    let relay = scene.relay();
    scene.write(1..=20).done().await;
    scene.world.drain_into(&mut Vec::new(), &scene.queue, 100).await;

    scene.broker.ctl(&["set_permissions", "amends", ".*", "^$", ".*"]);
    // A channel remembers what its user was allowed.
    scene.broker.ctl(&["close_all_connections", "permissions were changed"]);
    scene.write(21..=40).done().await;
    eventually("the relay is refused", || {
        fs::read_to_string(scene.broker.path("log")).unwrap().contains("refused for user 'amends'")
    })
    .await;
    scene.broker.ctl(&["set_permissions", "amends", ".*", ".*", ".*"]);

    scene.assert_all_came_from(21, 40).await;
    relay.stop().await;
}
