//! A network of our own: `lo` and a veth pair, without root.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::time::Duration;

use futures_core::Stream;
use rtnetlink::packet_route::link::{LinkAttribute, State};
use rtnetlink::{Handle, LinkUnspec, LinkVeth};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The two ends of the cable.
pub(crate) const VETH: [&str; 2] = ["cabo-a", "cabo-b"];

/// Moves this process, which must have one thread, into its own namespaces and builds the interfaces; otherwise says
/// why not, and what allows it.
pub(crate) fn enter() -> Result<(), String> {
    let (user, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    // SAFETY: no thread of ours shares what is unshared, for there is but one.
    unsafe { unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNET) }.map_err(|e| {
        format!("no user namespace: {e}; run: sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
    })?;
    map_ids(user, group).map_err(|e| format!("cannot map ids: {e}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let build =
        runtime.map_err(|e| e.to_string()).and_then(|runtime| runtime.block_on(interfaces()));
    build.map_err(|e| format!("cannot build interfaces: {e}"))
}

fn map_ids(user: u32, group: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

async fn interfaces() -> Result<(), String> {
    let (connection, handle, _) = rtnetlink::new_connection().map_err(|e| e.to_string())?;
    let driver = tokio::spawn(connection);
    let up = |name: &str| LinkUnspec::new_with_name(name).up().build();
    let [a, b] = VETH;
    handle.link().set(up("lo")).execute().await.map_err(|e| e.to_string())?;
    handle.link().add(LinkVeth::new(a, b).build()).execute().await.map_err(|e| e.to_string())?;
    for name in VETH {
        handle.link().set(up(name)).execute().await.map_err(|e| e.to_string())?;
    }
    // Until then the kernel drops what is sent, without a word.
    let running = async {
        for name in VETH {
            while !is_running(&handle, name).await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), running)
        .await
        .map_err(|_| "the veth pair stays down")?;
    driver.abort();
    Ok(())
}

async fn is_running(handle: &Handle, name: &str) -> bool {
    let mut links = pin!(handle.link().get().match_name(name.to_owned()).execute());
    let Some(Ok(link)) = poll_fn(|cx| links.as_mut().poll_next(cx)).await else { return false };
    link.attributes.contains(&LinkAttribute::OperState(State::Up))
}
