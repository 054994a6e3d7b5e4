//! M-3, M-5: nothing outside is reachable, nothing that blocks is opened, every name is listed.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;

use super::*;

fn code<T>(result: Result<T, MediaError>) -> Option<ErrorCode> {
    match result {
        Err(MediaError::Refused(refusal)) => Some(refusal.code),
        Err(error) => panic!("{error}"),
        Ok(_) => None,
    }
}

async fn list(
    stage: &Stage,
    folder: &str,
    is_recursive: bool,
) -> Result<BTreeMap<Vec<u8>, Entry>, MediaError> {
    let mut listing = stage.client.list(&path(folder), is_recursive).await?;
    let mut entries = BTreeMap::new();
    while let Some(entry) = listing.next().await? {
        entries.insert(entry.path.as_bytes().to_vec(), entry);
    }
    Ok(entries)
}

#[tokio::test]
async fn every_name_that_linux_allows_is_listed_and_read() {
    let stage = Stage::new();
    let long = [b'x'; 255];
    let names: [&[u8]; 8] =
        [b"plain.mp4", b" ", b"new\nline", b"\xff\xfe", b"-rf", b"...", b"caf\xc3\xa9", &long];
    for name in names {
        stage.write(name, name);
        stage.write([b"sub/".as_slice(), name].concat(), name);
    }
    let entries = list(&stage, "", true).await.unwrap();
    assert_eq!(entries.len(), 2 * names.len() + 1);
    for entry in entries.values().filter(|entry| entry.kind == EntryKind::File) {
        let (read, _) = stage.read_all(&entry.path).await.unwrap();
        assert_eq!(read, entry.path.split_last().unwrap().1);
        assert_eq!(entry.size, read.len() as u64);
    }
    assert_eq!(entries[b"plain.mp4".as_slice()].media_type, "video/mp4");
    let flat = list(&stage, "", false).await.unwrap();
    assert_eq!(flat.len(), names.len() + 1);
    assert_eq!(flat[b"sub".as_slice()].kind, EntryKind::Folder);
    assert_eq!(list(&stage, "sub", false).await.unwrap().len(), names.len());
}

#[tokio::test]
async fn a_large_folder_is_listed_page_by_page() {
    let stage = Stage::new();
    (0..300).for_each(|index| drop(stage.write(format!("f{index}"), b"")));
    assert_eq!(list(&stage, "", false).await.unwrap().len(), 300);
}

#[tokio::test]
async fn symlinks_are_followed_only_inside() {
    let outside = TempDir::new().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let stage = Stage::new();
    stage.write("folder/item", b"inside");
    let link = |target: &Path, name: &str| symlink(target, stage.folder.path().join(name)).unwrap();
    link(Path::new("folder/item"), "inside");
    link(Path::new("../folder/item"), "folder/around");
    link(Path::new("folder"), "twin");
    link(&outside.path().join("secret"), "absolute");
    link(
        Path::new(&format!("../{}/secret", outside.path().file_name().unwrap().display())),
        "relative",
    );
    link(outside.path(), "elsewhere");
    link(Path::new("loop"), "loop");
    link(Path::new(".."), "folder/up");
    link(Path::new("nowhere"), "dangling");
    link(Path::new("/proc/self/root"), "magic");

    for inside in ["inside", "folder/around", "twin/item", "folder/up/folder/item"] {
        assert_eq!(stage.read_all(&path(inside)).await.unwrap().0, b"inside", "{inside}");
    }
    for outside in
        ["absolute", "relative", "elsewhere/secret", "elsewhere", "magic", "magic/etc/passwd"]
    {
        let result = stage.read_all(&path(outside)).await;
        assert_eq!(code(result), Some(ErrorCode::AccessDenied), "{outside}");
    }
    for nowhere in ["loop", "dangling", "loop/x"] {
        assert_eq!(
            code(stage.read_all(&path(nowhere)).await),
            Some(ErrorCode::NotFound),
            "{nowhere}"
        );
    }
    let entries = list(&stage, "", true).await.unwrap();
    let names: Vec<_> = entries.keys().map(|name| str::from_utf8(name).unwrap()).collect();
    assert_eq!(names, ["folder", "folder/around", "folder/item", "folder/up", "inside", "twin"]);
    assert!(
        entries[b"twin".as_slice()].is_link
            && entries[b"twin".as_slice()].kind == EntryKind::Folder
    );
}

#[tokio::test]
async fn pipes_and_sockets_are_no_items_and_block_nothing() {
    let stage = Stage::new();
    let fifo = stage.folder.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let _socket =
        std::os::unix::net::UnixListener::bind(stage.folder.path().join("socket")).unwrap();
    stage.write("file", b"x");
    for name in ["pipe", "socket", ""] {
        assert_eq!(code(stage.read_all(&path(name)).await), Some(ErrorCode::NotAFile), "{name}");
        assert_eq!(
            code(stage.client.describe(&path(name)).await),
            Some(ErrorCode::NotAFile),
            "{name}"
        );
    }
    assert_eq!(list(&stage, "", true).await.unwrap().len(), 1);
    // A device, as far as a test without root has one.
    let devices = Catalogue::open(Path::new("/dev")).unwrap();
    assert_eq!(devices.describe(&path("null")).unwrap_err().code, ErrorCode::NotAFile);
    assert_eq!(devices.open_item(&path("tty")).unwrap_err().code, ErrorCode::NotAFile);
}

#[tokio::test]
async fn unfinished_files_are_no_items() {
    let stage = Stage::new();
    stage.write("film.mp4.cabo-partial", b"half");
    stage.write("folder.cabo-partial/inner", b"x");
    assert!(list(&stage, "", true).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_missing_denied_or_of_the_wrong_kind_is_told_apart() {
    let stage = Stage::new();
    stage.write("file", b"x");
    stage.write("folder/inner", b"x");
    assert_eq!(code(stage.client.describe(&path("none")).await), Some(ErrorCode::NotFound));
    assert_eq!(code(stage.client.describe(&path("file/inner")).await), Some(ErrorCode::NotFound));
    assert_eq!(code(stage.read_all(&path("folder")).await), Some(ErrorCode::NotAFile));
    assert_eq!(code(list(&stage, "file", false).await), Some(ErrorCode::NotAFolder));
    assert_eq!(code(list(&stage, "none", false).await), Some(ErrorCode::NotFound));
}

#[test]
fn what_may_not_be_read_is_denied_and_does_not_hide_the_rest() {
    let folder = TempDir::new().unwrap();
    let inside = |name: &str| folder.path().join(name);
    std::fs::write(inside("file"), "x").unwrap();
    ["closed", "open"].iter().for_each(|name| std::fs::create_dir(inside(name)).unwrap());
    std::fs::write(inside("open/inner"), "x").unwrap();
    set_mode(&inside("file"), 0);
    set_mode(&inside("closed"), 0);
    let catalogue = Catalogue::open(folder.path()).unwrap();
    unprivileged(|| {
        assert_eq!(catalogue.describe(&path("file")).unwrap().size, 1);
        assert_eq!(catalogue.open_item(&path("file")).unwrap_err().code, ErrorCode::AccessDenied);
        assert_eq!(
            catalogue.open_item(&path("closed/x")).unwrap_err().code,
            ErrorCode::AccessDenied
        );
        let mut walk = catalogue.walk(&path(""), true).unwrap();
        assert_eq!(walk.next_page(&catalogue, 100).unwrap().len(), 4);
        let refusal = walk.next_page(&catalogue, 100).unwrap_err();
        assert_eq!(
            (refusal.code, refusal.text.as_str()),
            (ErrorCode::AccessDenied, "the folder closed")
        );
    });
    set_mode(&inside("closed"), 0o700);
}

#[tokio::test]
async fn a_single_file_is_a_catalogue_of_one_item() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("real.bin"), "one").unwrap();
    std::fs::write(folder.path().join("other"), "two").unwrap();
    symlink("real.bin", folder.path().join("film.mp4")).unwrap();
    let catalogue = Catalogue::open(&folder.path().join("film.mp4")).unwrap();
    let stage = Stage::serving(folder, MediaServer::new(Arc::new(catalogue), Limits::default()));
    let entries = list(&stage, "", true).await.unwrap();
    assert_eq!(entries.into_keys().collect::<Vec<_>>(), [b"film.mp4"]);
    assert_eq!(stage.read_all(&path("film.mp4")).await.unwrap().0, b"one");
    for other in ["other", "real.bin", ""] {
        assert!(stage.read_all(&path(other)).await.is_err(), "{other}");
    }
}

#[test]
fn what_cannot_be_served_is_said() {
    assert!(matches!(
        Catalogue::open(Path::new("/dev/null")),
        Err(CatalogueError::NeitherFolderNorFile)
    ));
    assert!(matches!(Catalogue::open(Path::new("/nowhere/at/all")), Err(CatalogueError::Open(_))));
}

#[tokio::test]
async fn folders_deeper_than_the_bound_are_told_after_the_rest() {
    let stage = Stage::new();
    let deep = "d/".repeat(140);
    stage.write(format!("{deep}item"), b"x");
    let mut listing = stage.client.list(&ItemPath::default(), true).await.unwrap();
    let mut seen = 0;
    let refusal = loop {
        match listing.next().await {
            Ok(Some(_)) => seen += 1,
            Ok(None) => panic!("the listing is not whole"),
            Err(error) => break code::<()>(Err(error)),
        }
    };
    assert_eq!((seen, refusal), (128, Some(ErrorCode::Io)));
    assert_eq!(
        list(&stage, &"d/".repeat(100)[..199], true).await.unwrap().len(),
        41,
        "listed from further in"
    );
}
