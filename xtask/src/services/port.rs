//! The ports of the private servers: chosen once, remembered, changed only when taken.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};

/// Below the range that the kernel hands out to clients, above the ports that servers are known by.
const FIRST: u16 = 21_000;
const STEP: u16 = 10;
const STEPS: u16 = 500;

/// The port that `file` remembers, if any.
pub(crate) fn remembered(file: &Path) -> Option<u16> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The first of `count` free ports in a row, the remembered ones if they are still free.
///
/// `seed` decides where to look first, so that two workspaces seldom choose the same.
pub(crate) fn choose(file: &Path, count: u16, seed: u64) -> Result<u16> {
    let old = remembered(file);
    let offset = (seed % u64::from(STEPS)) as u16;
    let new = (0..STEPS).map(|n| FIRST + (n + offset) % STEPS * STEP);
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
