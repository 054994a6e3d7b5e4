//! M-10: whole files or a typed error; what was proved once is not sent again; nothing outside is written.

use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use rustix::fs::{CWD, FlockOperation, Mode, flock, mkfifoat};

use super::*;
use crate::access::Access;
use crate::connection::{Code, Ended};
use crate::endpoint::{Endpoint, Settings};
use crate::keys::Identity;
use crate::needs::{Need, skip_without};
use crate::server::{Server, ServerSettings};
use crate::service::media::target::Partial;

struct Goal {
    folder: TempDir,
    target: Arc<Target>,
}

impl Goal {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let target = Arc::new(Target::open(folder.path()).unwrap());
        Self { folder, target }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn get(&self, stage: &Stage, name: &str) -> Result<FetchReport, FetchError> {
        self.get_from(&stage.client, name).await
    }

    async fn get_from(&self, client: &MediaClient, name: &str) -> Result<FetchReport, FetchError> {
        fetch(client, &path(name), &self.target, &path(name), &FetchOptions::default(), |_| ())
            .await
    }
}

#[tokio::test]
async fn every_size_arrives_whole_with_its_time() {
    let (stage, goal) = (Stage::new(), Goal::new());
    for size in [0, 1, 1024, MIB - 1, MIB, MIB + 1, 4 * MIB, 5 * MIB + 3] {
        let content = content(size, 0);
        let source = stage.write(format!("trip/{size}"), &content);
        let progress = Mutex::new(Vec::new());
        let name = path(format!("trip/{size}"));
        let note = |step: Progress| progress.lock().unwrap().push(step.proved_bytes);
        let report =
            fetch(&stage.client, &name, &goal.target, &name, &FetchOptions::default(), note)
                .await
                .unwrap();
        let here = goal.file(&format!("trip/{size}"));
        assert!(std::fs::read(&here).unwrap() == content, "{size}");
        assert_eq!(
            here.metadata().unwrap().modified().unwrap(),
            source.metadata().unwrap().modified().unwrap()
        );
        let blocks = tree::block_count(size as u64);
        assert_eq!((report.bytes, report.resumed_bytes, report.blocks), (size as u64, 0, blocks));
        assert_eq!(report.root, plain_hash(&content));
        assert_eq!(
            progress.into_inner().unwrap().last().copied(),
            (size > 0).then_some(size as u64)
        );
    }
    assert_eq!(names(&goal.file("trip")).len(), 8, "nothing unfinished is left");
}

#[tokio::test]
async fn a_transfer_that_was_cut_anywhere_is_resumed_from_its_last_block() {
    let stage = Stage::new();
    let content = content(3 * MIB + MIB / 3, 0);
    stage.write("item", &content);
    let mib = BLOCK_BYTES;
    for cut in [
        0,
        1,
        70,
        200,
        mib - 1,
        mib,
        mib + 200,
        2 * mib,
        2 * mib + 400,
        3 * mib + 300_000,
        3 * mib + 349_800,
    ] {
        let goal = Goal::new();
        stage.cut_after(cut);
        let error = goal.get(&stage, "item").await.unwrap_err();
        assert!(matches!(error, FetchError::Media(MediaError::Broken(_))), "{cut}: {error}");
        assert!(!goal.file("item").exists());
        stage.cut_after(u64::MAX);
        let report = goal.get(&stage, "item").await.unwrap();
        assert!(std::fs::read(goal.file("item")).unwrap() == content, "{cut}");
        let whole_blocks = cut.saturating_sub(200) / mib * mib; // the answer's heads take less than 200 bytes
        assert!(report.resumed_bytes >= whole_blocks, "{cut}: {report:?}");
        assert_eq!(
            report.blocks,
            tree::block_count(content.len() as u64 - report.resumed_bytes),
            "{cut}"
        );
        assert_eq!(names(goal.folder.path()), [b"item"]);
    }
}

#[tokio::test]
async fn a_transfer_that_is_cut_again_and_again_ends() {
    let (stage, goal) = (Stage::new(), Goal::new());
    let content = content(6 * MIB, 0);
    stage.write("item", &content);
    stage.cut_after(BLOCK_BYTES + 1000);
    let mut tries = 0;
    while goal.get(&stage, "item").await.is_err() {
        tries += 1;
        assert!(tries < 10);
    }
    assert!(std::fs::read(goal.file("item")).unwrap() == content);
    assert_eq!(tries, 5, "each try brought a block");
}

#[tokio::test]
async fn only_the_wrong_blocks_of_an_unfinished_file_are_sent() {
    let stage = Stage::new();
    let content = content(6 * MIB + 5, 0);
    stage.write("item", &content);
    let cases: [(&[usize], usize, u64); 6] = [
        (&[], content.len(), 0),
        (&[0], content.len(), 1),
        (&[1, 3, 4], content.len(), 3),
        (&[6], content.len(), 1),
        (&[2], 5 * MIB - 1, 4),
        (&[0, 1, 2, 3, 4, 5, 6], content.len() + 3 * MIB, 7),
    ];
    for (wrong, length, blocks) in cases {
        let goal = Goal::new();
        let mut left = content.clone();
        left.resize(length, 0xee);
        wrong.iter().for_each(|block| left[block * MIB] ^= 1);
        std::fs::write(goal.file("item.cabo-partial"), &left).unwrap();
        let report = goal.get(&stage, "item").await.unwrap();
        assert_eq!(report.blocks, blocks, "{wrong:?} of {length}");
        assert!(std::fs::read(goal.file("item")).unwrap() == content, "{wrong:?} of {length}");
        assert_eq!(names(goal.folder.path()), [b"item"]);
    }
}

#[tokio::test]
async fn a_server_that_was_restarted_proves_what_it_does_not_remember() {
    let (stage, goal) = (Stage::new(), Goal::new());
    let content = content(4 * MIB + 1, 0);
    stage.write("item", &content);
    std::fs::write(goal.file("item.cabo-partial"), &content[..3 * MIB]).unwrap();
    let report = goal.get(&stage, "item").await.unwrap();
    assert_eq!((report.resumed_bytes, report.root), (3 * BLOCK_BYTES, plain_hash(&content)));
}

#[tokio::test]
async fn an_unfinished_file_of_another_item_is_not_trusted() {
    let (stage, goal) = (Stage::new(), Goal::new());
    let content = content(2 * MIB, 0);
    stage.write("item", &content);
    for left in [vec![7; MIB / 2], vec![7; 9 * MIB], super::content(2 * MIB, 3)] {
        std::fs::write(goal.file("item.cabo-partial"), left).unwrap();
        let report = goal.get(&stage, "item").await.unwrap();
        assert_eq!(report.resumed_bytes, 0);
        assert!(std::fs::read(goal.file("item")).unwrap() == content);
        std::fs::remove_file(goal.file("item")).unwrap();
    }
}

#[tokio::test]
async fn what_is_complete_already_is_not_sent_again() {
    let (stage, goal) = (Stage::new(), Goal::new());
    stage.write("item", &content(2 * MIB + 1, 0));
    stage.write("empty", b"");
    for name in ["item", "empty"] {
        let first = goal.get(&stage, name).await.unwrap();
        let inode = goal.file(name).metadata().unwrap().ino();
        let again = goal.get(&stage, name).await.unwrap();
        assert_eq!((again.blocks, again.resumed_bytes, again.root), (0, first.bytes, first.root));
        assert_eq!(goal.file(name).metadata().unwrap().ino(), inode);
    }
    assert_eq!(names(goal.folder.path()), [b"empty".as_slice(), b"item"]);
}

#[tokio::test]
async fn another_file_in_its_place_is_replaced_only_after_proof() {
    let (stage, goal) = (Stage::new(), Goal::new());
    let content = content(2 * MIB, 0);
    stage.write("item", &content);
    for old in [b"old".to_vec(), super::content(2 * MIB, 9)] {
        std::fs::write(goal.file("item"), &old).unwrap();
        stage.cut_after(BLOCK_BYTES + 5000);
        goal.get(&stage, "item").await.unwrap_err();
        assert!(std::fs::read(goal.file("item")).unwrap() == old);
        stage.cut_after(u64::MAX);
        goal.get(&stage, "item").await.unwrap();
        assert!(std::fs::read(goal.file("item")).unwrap() == content);
    }
}

#[tokio::test]
async fn two_gets_of_one_item_do_not_meet() {
    let (stage, goal) = (Stage::new(), Goal::new());
    stage.write("item", &content(MIB, 0));
    let held = std::fs::File::create(goal.file("item.cabo-partial")).unwrap();
    flock(&held, FlockOperation::LockExclusive).unwrap();
    assert!(matches!(goal.get(&stage, "item").await, Err(FetchError::Locked)));
    drop(held);
    goal.get(&stage, "item").await.unwrap();
}

#[tokio::test]
async fn a_wrong_name_leaves_nothing_behind() {
    let (stage, goal) = (Stage::new(), Goal::new());
    let Err(FetchError::Media(MediaError::Refused(refusal))) = goal.get(&stage, "none").await
    else {
        panic!()
    };
    assert_eq!(refusal.code, ErrorCode::NotFound);
    assert!(names(goal.folder.path()).is_empty());
}

#[tokio::test]
async fn what_was_planted_in_the_target_is_neither_followed_nor_opened() {
    let stage = Stage::new();
    stage.write("item", b"content");
    stage.write("sub/item", b"content");
    let outside = TempDir::new().unwrap();
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    type Plant = fn(&Goal, &Path);
    let plants: [(&str, &str, Plant); 8] = [
        ("a link as the item", "item", |goal, victim| symlink(victim, goal.file("item")).unwrap()),
        ("a link as unfinished", "item", |goal, victim| {
            symlink(victim, goal.file("item.cabo-partial")).unwrap()
        }),
        ("a dangling link", "item", |goal, victim| {
            symlink(victim.with_extension("new"), goal.file("item.cabo-partial")).unwrap();
        }),
        ("a second name", "item", |goal, victim| {
            std::fs::hard_link(victim, goal.file("item.cabo-partial")).unwrap();
        }),
        ("a linked folder", "sub/item", |goal, victim| {
            symlink(victim.parent().unwrap(), goal.file("sub")).unwrap()
        }),
        ("a file as folder", "sub/item", |goal, _| std::fs::write(goal.file("sub"), "x").unwrap()),
        ("a folder as the item", "item", |goal, _| std::fs::create_dir(goal.file("item")).unwrap()),
        ("a pipe", "item", |goal, _| {
            mkfifoat(CWD, goal.file("item.cabo-partial"), Mode::from_raw_mode(0o600)).unwrap();
        }),
    ];
    for (what, item, plant) in plants {
        let goal = Goal::new();
        plant(&goal, &victim);
        let result = goal.get(&stage, item).await;
        assert!(matches!(result, Err(FetchError::Occupied(_))), "{what}: {result:?}");
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious", "{what}");
        assert_eq!(names(outside.path()), [b"victim"], "{what}");
    }
}

#[tokio::test]
async fn a_source_that_changes_under_way_is_an_error_and_the_next_run_takes_the_new_one() {
    let (stage, goal) = (Stage::new(), Goal::new());
    let file = stage.write("item", &content(8 * MIB, 0));
    let newer = [&content(3 * MIB, 0)[..], &content(5 * MIB, 1)[..]].concat();
    let change = |step: Progress| {
        if step.proved_bytes == BLOCK_BYTES {
            std::fs::write(&file, &newer).unwrap();
        }
    };
    let item = path("item");
    let result =
        fetch(&stage.client, &item, &goal.target, &item, &FetchOptions::default(), change).await;
    let Err(FetchError::Media(MediaError::Refused(refusal))) = result else { panic!("{result:?}") };
    assert_eq!(refusal.code, ErrorCode::Changed);
    let report = goal.get(&stage, "item").await.unwrap();
    assert!(std::fs::read(goal.file("item")).unwrap() == newer);
    assert!(report.resumed_bytes >= BLOCK_BYTES, "the blocks that are the same");
}

#[tokio::test]
async fn a_root_that_the_caller_knows_has_to_match() {
    let (stage, goal) = (Stage::new(), Goal::new());
    stage.write("item", b"content");
    let item = path("item");
    let options =
        FetchOptions { expected_root: Some(plain_hash(b"other")), ..FetchOptions::default() };
    let result = fetch(&stage.client, &item, &goal.target, &item, &options, |_| ()).await;
    assert!(matches!(result, Err(FetchError::WrongRoot { .. })), "{result:?}");
    assert!(!goal.file("item").exists());
    let options =
        FetchOptions { expected_root: Some(plain_hash(b"content")), ..FetchOptions::default() };
    fetch(&stage.client, &item, &goal.target, &item, &options, |_| ()).await.unwrap();
}

#[test]
fn a_target_that_cannot_be_written_is_said() {
    let goal = Goal::new();
    std::fs::write(goal.file("locked.cabo-partial"), "x").unwrap();
    set_mode(&goal.file("locked.cabo-partial"), 0o400);
    set_mode(goal.folder.path(), 0o500);
    unprivileged(|| {
        for item in ["item", "sub/item", "locked"] {
            let error = Partial::open(&goal.target, &path(item)).unwrap_err();
            assert!(matches!(error, FetchError::Local { .. }), "{item}: {error}");
        }
    });
    let proc = Target::open(Path::new("/proc/self")).unwrap();
    assert!(matches!(Partial::open(&proc, &path("item")), Err(FetchError::Local { .. })));
}

#[tokio::test]
async fn a_whole_catalogue_arrives_several_items_at_once() {
    let (stage, goal) = (Stage::new(), Goal::new());
    let long = [b'x'; 255];
    let items: [&[u8]; 6] = [b"a", b"sub/deep/b", b"sub/new\nline", b"\xff\xfe", b"-rf", &long];
    items.iter().for_each(|name| drop(stage.write(name, name)));
    stage.write("big", &content(3 * MIB, 0));
    std::fs::create_dir(stage.folder.path().join("empty")).unwrap();
    symlink("sub", stage.folder.path().join("twin")).unwrap();
    std::fs::create_dir(goal.file("a")).unwrap(); // in the way of one item
    let mut failed = Vec::new();
    let on_item = |name: &ItemPath, result: &Result<_, _>| {
        if result.is_err() {
            failed.push(name.clone());
        }
    };
    let root = ItemPath::default();
    let options = FetchAllOptions::default();
    let summary =
        fetch_all(&stage.client, &root, &goal.target, &options, |_, _| (), on_item).await.unwrap();
    assert_eq!((summary.items, summary.failed, failed), (6, 1, vec![path("a")]));
    for name in &items[1..] {
        let here = goal.folder.path().join(std::ffi::OsStr::from_bytes(name));
        assert_eq!(std::fs::read(here).unwrap(), *name);
    }
    assert_eq!(names(&goal.file("sub/deep")), [b"b"]);
    assert!(goal.file("empty").is_dir() && !goal.file("twin").exists());
    let again = Goal::new();
    let sub = path("sub");
    let summary = fetch_all(&stage.client, &sub, &again.target, &options, |_, _| (), |_, _| ())
        .await
        .unwrap();
    assert_eq!(
        (summary.items, names(again.folder.path())),
        (2, vec![b"deep".to_vec(), b"new\nline".to_vec()])
    );
}

#[tokio::test]
async fn a_broken_connection_ends_the_fetch_of_a_catalogue() {
    let (stage, goal) = (Stage::new(), Goal::new());
    (0..50).for_each(|index| drop(stage.write(format!("{index}"), &content(1000, 0))));
    stage.cut_after(1000); // within the listing, and within each item
    let options = FetchAllOptions::default();
    let root = ItemPath::default();
    let mut items = 0;
    let on_item = |_: &_, result: &Result<_, _>| items += u64::from(result.is_ok());
    let result = fetch_all(&stage.client, &root, &goal.target, &options, |_, _| (), on_item).await;
    assert!(matches!(result, Err(FetchError::Media(MediaError::Broken(_)))), "{result:?}");
    assert_eq!(items, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_session_is_what_the_fetch_of_a_catalogue_fails_of() {
    let (stage, goal) = (Stage::new(), Goal::new());
    for index in 0..4 {
        stage.write(format!("{index}"), b"");
        let file =
            std::fs::File::options().write(true).open(stage.folder.path().join(index.to_string()));
        file.unwrap().set_len(256 << 20).unwrap();
    }
    let settings = ServerSettings { drain_time: Duration::ZERO, ..ServerSettings::default() };
    let endpoint = || Endpoint::new(&Identity::generate().unwrap(), Settings::default()).unwrap();
    let server = endpoint();
    let access = Access::new(server.public_key()).open();
    let (server, _events) =
        Server::new(server, access, vec![Arc::new(stage.server.clone())], settings, None);
    let address = "tcp://127.0.0.1:0".parse().unwrap();
    let address = server.endpoint().listen(&address).await.unwrap().address;
    let client = endpoint();
    let stop = Arc::new(tokio::sync::Notify::new());
    let fetching = async {
        let media = MediaClient::new(client.connect(&address, None).await.unwrap());
        let (root, options) = (ItemPath::default(), FetchAllOptions::default());
        let stop = stop.clone();
        let tell = move |_: &_, _| stop.notify_one(); // in the middle of everything
        fetch_all(&media, &root, &goal.target, &options, tell, |_, _| ()).await
    };
    let (result, ()) = tokio::join!(fetching, server.run(stop.notified()));
    let Err(FetchError::Media(error)) = result else { panic!("{result:?}") };
    let end = error.session_end();
    assert!(
        matches!(end, Some(Ended::PeerProtocol { code: Code::DRAINING, .. })),
        "{end:?} {error:?}"
    );
}

/// Runs the two tests below on a disk of 3 MiB, in namespaces of their own.
#[test]
fn a_full_disk_is_said_before_and_under_way() {
    if skip_without(&[Need::Program("unshare"), Need::Namespaces]) {
        return;
    }
    let script = r#"mount -t tmpfs -o size=3m tmpfs "$1" && shift && exec "$@""#;
    let disk = TempDir::new().unwrap();
    let unshare = |command: &[&std::ffi::OsStr]| {
        let mut unshare = Command::new("unshare");
        unshare.args(["-Urm", "sh", "-c", script, "sh"]).arg(disk.path()).args(command);
        unshare.env("CABO_TEST_SMALL_DISK", disk.path()).output()
    };
    let program = std::env::current_exe().unwrap();
    let tests = ["--ignored", "--test-threads=1", "on_the_small_disk"].map(std::ffi::OsStr::new);
    let output = unshare(&[&[program.as_os_str()], tests.as_slice()].concat()).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("2 passed"), "{text}");
}

fn small_disk() -> Option<(PathBuf, Arc<Target>)> {
    let folder = PathBuf::from(std::env::var_os("CABO_TEST_SMALL_DISK")?);
    let target = Arc::new(Target::open(&folder).unwrap());
    Some((folder, target))
}

#[tokio::test]
#[ignore = "run by a_full_disk_is_said_before_and_under_way"]
async fn too_large_an_item_is_refused_on_the_small_disk() {
    let Some((folder, target)) = small_disk() else { return };
    let stage = Stage::new();
    stage.write("item", &content(5 * MIB, 0));
    let item = path("item");
    let result =
        fetch(&stage.client, &item, &target, &item, &FetchOptions::default(), |_| ()).await;
    assert!(
        matches!(result, Err(FetchError::NoRoom { needed_bytes: 5_242_880, .. })),
        "{result:?}"
    );
    assert!(names(&folder).is_empty());
}

#[tokio::test]
#[ignore = "run by a_full_disk_is_said_before_and_under_way"]
async fn a_disk_that_fills_up_keeps_what_is_proved_on_the_small_disk() {
    let Some((folder, target)) = small_disk() else { return };
    let stage = Stage::new();
    let content = content(2 * MIB + MIB / 2, 0);
    stage.write("item", &content);
    let (item, other) = (path("item"), folder.join("other"));
    let fill = |step: Progress| {
        if step.proved_bytes == BLOCK_BYTES {
            let _ = std::fs::write(&other, vec![1; 3 * MIB]);
        }
    };
    let result = fetch(&stage.client, &item, &target, &item, &FetchOptions::default(), fill).await;
    assert!(matches!(result, Err(FetchError::DiskFull)), "{result:?}");
    std::fs::remove_file(other).unwrap();
    let report = fetch(&stage.client, &item, &target, &item, &FetchOptions::default(), |_| ())
        .await
        .unwrap();
    assert!(report.resumed_bytes >= BLOCK_BYTES, "{report:?}");
    assert!(std::fs::read(folder.join("item")).unwrap() == content);
    std::fs::remove_file(folder.join("item")).unwrap();
}
