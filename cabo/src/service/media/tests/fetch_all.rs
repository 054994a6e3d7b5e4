//! M-12.8 to M-12.10: whole folders in batches, complete or told, and the second run copies what changed.

use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

use super::*;
use crate::service::media::many::MAX_WANTED_BYTES;

/// What a run told of its items.
#[derive(Debug, Default)]
struct Told {
    fetched: Vec<(ItemPath, FetchReport)>,
    failed: Vec<(ItemPath, String)>,
}

impl Told {
    /// Blocks that were sent, of all items.
    fn blocks(&self) -> u64 {
        self.fetched.iter().map(|(_, report)| report.blocks).sum()
    }
}

async fn run(
    client: &MediaClient,
    goal: &Path,
    options: FetchAllOptions,
) -> (Told, Result<FetchSummary, FetchError>) {
    let target = Arc::new(Target::open(goal).unwrap());
    let mut told = Told::default();
    let on_item = |name: &ItemPath, result: &Result<FetchReport, FetchError>| match result {
        Ok(report) => told.fetched.push((name.clone(), *report)),
        Err(error) => told.failed.push((name.clone(), error.to_string())),
    };
    let root = ItemPath::default();
    let result = fetch_all(client, &root, &target, &options, |_, _| (), on_item).await;
    (told, result)
}

async fn get_all(stage: &Stage, goal: &Path) -> (Told, FetchSummary) {
    let (told, result) = run(&stage.client, goal, FetchAllOptions::default()).await;
    (told, result.unwrap())
}

/// Every path beneath, with what can be told apart: mode, time, content.
fn tree_of(folder: &Path) -> Vec<(PathBuf, u32, SystemTime, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut left = vec![folder.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = meta.is_file().then(|| std::fs::read(&path).unwrap());
            let relative = path.strip_prefix(folder).unwrap().to_owned();
            found.push((relative, meta.mode() & 0o7777, meta.modified().unwrap(), content));
            if meta.is_dir() {
                left.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A few folders of a few hundred files, some of them empty, one beyond a batch.
fn fill(stage: &Stage) -> usize {
    let mut count = 0;
    for folder in ["", "a/", "a/deep/", "b/"] {
        for index in 0..120 {
            stage.write(format!("{folder}{index}"), &content(index * 37, folder.len() as u8));
            count += 1;
        }
    }
    stage.write("long", &content(MIB + 5, 9));
    stage.write("middle", &content(MIB / 2, 9));
    std::fs::create_dir_all(stage.folder.path().join("empty/within")).unwrap();
    count + 2
}

#[tokio::test]
async fn a_folder_of_small_files_arrives_as_it_is() {
    let (stage, goal) = (Stage::new(), TempDir::new().unwrap());
    let count = fill(&stage);
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    for (name, mode) in
        [("5", 0o600), ("a", 0o750), ("b/7", 0o4711), ("empty", 0o1700), ("b", 0o500)]
    {
        set_mode(&stage.folder.path().join(name), mode);
    }
    for name in ["6", "empty/within", "empty", "a"] {
        std::fs::File::open(stage.folder.path().join(name)).unwrap().set_modified(old).unwrap();
    }
    let (told, summary) = get_all(&stage, goal.path()).await;
    assert_eq!((summary.items, summary.failed), (count as u64, 0), "{:?}", told.failed);
    assert_eq!(told.fetched.len(), count);
    let requests = *stage.loopback.requests.lock().unwrap();
    assert!(requests < 20, "{requests} requests for {count} files");
    for (name, report) in &told.fetched {
        let file = goal.path().join(std::ffi::OsStr::from_bytes(name.as_bytes()));
        assert_eq!(report.root, plain_hash(&std::fs::read(file).unwrap()), "{name}");
    }
    let mut expected = tree_of(stage.folder.path());
    for (path, mode, ..) in &mut expected {
        *mode &= 0o777; // nothing that lends rights
        if path == Path::new("b") {
            *mode |= 0o700;
        }
    }
    assert_eq!(tree_of(goal.path()), expected);
    set_mode(&stage.folder.path().join("b"), 0o700);
}

#[tokio::test]
async fn the_second_run_copies_what_changed_by_content_and_not_by_time() {
    let (stage, goal) = (Stage::new(), TempDir::new().unwrap());
    let count = fill(&stage);
    get_all(&stage, goal.path()).await;
    let (told, summary) = get_all(&stage, goal.path()).await;
    assert_eq!((told.blocks(), summary.items), (0, count as u64), "nothing changed");
    assert_eq!(summary.resumed_bytes, summary.bytes);
    // Another content of the same size and time is sent, another time alone is not.
    let touched = stage.folder.path().join("a/100");
    let time = touched.metadata().unwrap().modified().unwrap();
    std::fs::write(&touched, content(3700, 77)).unwrap();
    std::fs::File::open(&touched).unwrap().set_modified(time).unwrap();
    let later = time + Duration::from_secs(5);
    std::fs::File::open(stage.folder.path().join("b/100")).unwrap().set_modified(later).unwrap();
    set_mode(&stage.folder.path().join("b/101"), 0o640);
    stage.write("new", b"new");
    std::fs::remove_file(goal.path().join("b/3")).unwrap();
    let (told, summary) = get_all(&stage, goal.path()).await;
    assert_eq!((told.blocks(), summary.failed), (3, 0));
    assert_eq!(tree_of(goal.path()), tree_of(stage.folder.path()));
}

#[tokio::test]
async fn a_run_that_is_cut_anywhere_leaves_whole_items_and_the_next_completes_it() {
    let stage = Stage::new();
    let count = fill(&stage);
    let whole = tree_of(stage.folder.path());
    for cut in [0, 1, 3_000, 20_000, 40_000, 100_000, 300_000, 600_000] {
        let goal = TempDir::new().unwrap();
        stage.cut_after(cut);
        let (_, result) = run(&stage.client, goal.path(), FetchAllOptions::default()).await;
        assert!(
            matches!(result, Err(FetchError::Media(MediaError::Broken(_)))),
            "{cut}: {result:?}"
        );
        for (path, _, _, content) in tree_of(goal.path()) {
            let name = path.as_os_str().as_bytes();
            let Some(content) = content.filter(|_| !name.ends_with(PARTIAL_SUFFIX)) else {
                continue;
            };
            let served = std::fs::read(stage.folder.path().join(&path)).unwrap();
            assert!(content == served, "{cut}: {path:?}");
        }
        stage.cut_after(u64::MAX);
        let (told, summary) = get_all(&stage, goal.path()).await;
        assert_eq!((summary.items, summary.failed), (count as u64, 0), "{cut}: {:?}", told.failed);
        assert_eq!(tree_of(goal.path()), whole, "{cut}");
    }
}

#[tokio::test]
async fn what_a_dead_run_left_is_removed_and_what_a_live_one_writes_is_not() {
    let (stage, goal) = (Stage::new(), TempDir::new().unwrap());
    fill(&stage);
    let slot =
        |count: usize| goal.path().join(std::ffi::OsStr::from_bytes(&PARTIAL_SUFFIX.repeat(count)));
    for count in [1, 2] {
        std::fs::create_dir(slot(count)).unwrap();
        set_mode(&slot(count), 0o700);
        std::fs::write(slot(count).join("17"), b"left over").unwrap();
    }
    let live = std::fs::File::open(slot(1)).unwrap();
    rustix::fs::flock(&live, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let (_, summary) = get_all(&stage, goal.path()).await;
    assert_eq!(summary.failed, 0);
    assert_eq!(std::fs::read(slot(1).join("17")).unwrap(), b"left over", "it is in use");
    assert!(!slot(2).exists(), "nobody used it");
    drop(live);
    std::fs::remove_file(goal.path().join("5")).unwrap();
    get_all(&stage, goal.path()).await;
    assert_eq!(tree_of(goal.path()), tree_of(stage.folder.path()));
}

#[tokio::test]
async fn what_is_planted_in_the_target_is_neither_followed_nor_used() {
    let (stage, goal, outside) = (Stage::new(), TempDir::new().unwrap(), TempDir::new().unwrap());
    fill(&stage);
    std::os::unix::fs::symlink(outside.path(), goal.path().join("a")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("x"), goal.path().join("5")).unwrap();
    std::os::unix::fs::symlink(outside.path(), goal.path().join(".cabo-partial")).unwrap();
    let second = goal.path().join(".cabo-partial.cabo-partial");
    std::fs::create_dir(&second).unwrap();
    std::fs::write(second.join("a file of somebody"), b"kept").unwrap();
    let (told, summary) = get_all(&stage, goal.path()).await;
    let failed = told.failed.iter().filter(|(name, _)| {
        name.as_bytes().starts_with(b"a/") || name == &path("a") || name == &path("5")
    });
    assert_eq!((failed.count() as u64, summary.failed), (243, 243), "{:?}", told.failed);
    assert!(names(outside.path()).is_empty());
    assert_eq!(std::fs::read(second.join("a file of somebody")).unwrap(), b"kept");
    assert_eq!(std::fs::read(goal.path().join("b/100")).unwrap(), content(3700, 2));
}

#[tokio::test]
async fn an_item_that_cannot_be_read_or_written_stops_no_other() {
    let (stage, goal) = (Stage::new(), TempDir::new().unwrap());
    let count = fill(&stage) as u64;
    std::fs::create_dir(goal.path().join("7")).unwrap();
    std::fs::write(goal.path().join("b"), b"a file where a folder belongs").unwrap();
    let (told, summary) = get_all(&stage, goal.path()).await;
    // The folder itself is told too, beside what belongs into it.
    assert_eq!((summary.items, summary.failed), (count - 121, 122), "{:?}", told.failed);
    assert_eq!(std::fs::read(goal.path().join("b")).unwrap(), b"a file where a folder belongs");
}

#[tokio::test]
async fn what_is_left_out_is_neither_asked_for_nor_made() {
    let (stage, goal) = (Stage::new(), TempDir::new().unwrap());
    fill(&stage);
    let is_left_out: Arc<dyn Fn(&ItemPath) -> bool + Send + Sync> =
        Arc::new(|name| name.as_bytes().starts_with(b"a") || name.as_bytes() == b"long");
    let options = FetchAllOptions { is_left_out: Some(is_left_out), ..Default::default() };
    let (_, result) = run(&stage.client, goal.path(), options).await;
    assert_eq!(result.unwrap().items, 241);
    assert!(!goal.path().join("a").exists() && !goal.path().join("long").exists());
}

/// M-12.1: the program of yesterday says that the request makes no sense.
#[tokio::test]
async fn an_older_server_is_asked_file_by_file() {
    let (stage, goal) = (Stage::new(), TempDir::new().unwrap());
    let count = fill(&stage);
    stage.loopback.is_old.store(true, Ordering::Relaxed);
    let (told, summary) = get_all(&stage, goal.path()).await;
    assert_eq!((summary.items, summary.failed), (count as u64, 0), "{:?}", told.failed);
    assert_eq!(tree_of(goal.path()), tree_of(stage.folder.path()));
    let (told, summary) = get_all(&stage, goal.path()).await;
    assert_eq!((told.blocks(), summary.items), (0, count as u64), "{:?}", told.failed);
}

#[tokio::test]
async fn paths_of_any_length_fit_the_requests() {
    let (stage, goal) = (Stage::new(), TempDir::new().unwrap());
    let folder = format!("{0}/{0}/{0}/{0}", "f".repeat(255));
    let count = MAX_WANTED_BYTES / folder.len() + 20;
    (0..count).for_each(|index| drop(stage.write(format!("{folder}/{index}"), b"x")));
    let (_, summary) = get_all(&stage, goal.path()).await;
    assert_eq!((summary.items, summary.failed), (count as u64, 0));
}
