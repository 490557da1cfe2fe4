//! The ports of the private servers: chosen once, remembered, changed only when taken.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};

/// The ports that one kind of server may have: its own, as both are started, and look for a port, at once.
///
/// All are below the range that the kernel hands out to clients, and above what servers are known by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range(u16);

/// Where `PostgreSQL` may listen.
pub(crate) const POSTGRES: Range = Range(21_000);
/// Where `RabbitMQ` may listen.
pub(crate) const RABBITMQ: Range = Range(26_000);

const STEP: u16 = 10;
const STEPS: u16 = 500;

/// The port that `file` remembers, if any.
pub(crate) fn remembered(file: &Path) -> Option<u16> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The first of `count` free ports in a row, the remembered ones if they are still free.
///
/// `seed` decides where to look first, so that two workspaces seldom choose the same.
pub(crate) fn choose(file: &Path, range: Range, count: u16, seed: u64) -> Result<u16> {
    let old = remembered(file);
    let offset = (seed % u64::from(STEPS)) as u16;
    let new = (0..STEPS).map(|n| range.0 + (n + offset) % STEPS * STEP);
    let port = old
        .into_iter()
        .chain(new)
        .find(|first| (*first..first + count).all(is_free))
        .ok_or_else(|| Error::failed("no free port on 127.0.0.1"))?;
    if old != Some(port) {
        fs::write(file, port.to_string()).map_err(Error::io(format!("write {}", file.display())))?;
    }
    Ok(port)
}

/// A connection to `port` of this machine, if something listens there.
pub(crate) fn connect(port: u16) -> Option<TcpStream> {
    let patience = Duration::from_secs(2);
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), patience).ok()?;
    stream.set_read_timeout(Some(patience)).ok()?;
    Some(stream)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
