//! What is asked and what is answered, one request at a time.

use super::*;

#[tokio::test]
async fn every_part_of_an_item_is_what_the_file_has() {
    let stage = Stage::new().await;
    let content = content(3 * MIB + 5);
    stage.write("film.mp4", &content);
    let size = content.len();
    let cases = [
        ("", 200, 0..size),
        ("bytes=0-", 206, 0..size),
        ("bytes=0-0", 206, 0..1),
        ("bytes=1048575-1048576", 206, MIB - 1..MIB + 1),
        ("bytes=1000-2999999", 206, 1000..3_000_000),
        ("bytes=3145728-", 206, 3 * MIB..size),
        ("bytes=-6", 206, size - 6..size),
        ("bytes=-99999999", 206, 0..size),
        ("bytes=3145732-99999999", 206, size - 1..size),
        ("bytes=5-6,10-20", 206, 5..7),
        ("bytes=9-5", 200, 0..size),
        ("bytes=x", 200, 0..size),
    ];
    for (range, status, expected) in cases {
        let line = format!("Range: {range}");
        let more = if range.is_empty() { vec![] } else { vec![line.as_str()] };
        let reply = stage.get("film.mp4", &more).await;
        assert_eq!(reply.status, status, "{range}");
        assert!(reply.body == content[expected.clone()], "{range}: {}", reply.body.len());
        assert_eq!(reply.header("content-length"), expected.len().to_string(), "{range}");
        assert_eq!(reply.header("content-type"), "video/mp4");
        assert_eq!(reply.header("accept-ranges"), "bytes");
        let content_range = format!("bytes {}-{}/{size}", expected.start, expected.end - 1);
        let expected = if status == 206 { content_range.as_str() } else { "" };
        assert_eq!(reply.header("content-range"), expected, "{range}");
        let head = stage.ask("HEAD", &stage.target("film.mp4"), &more).await;
        assert_eq!((head.status, head.body.len()), (200, 0), "HEAD knows no range");
        assert_eq!(head.header("content-length"), size.to_string());
        assert_eq!(head.header("etag"), reply.header("etag"));
    }
    for range in ["bytes=3145733-", "bytes=-0", "bytes=99999999-100000000"] {
        let reply = stage.get("film.mp4", &[&format!("Range: {range}")]).await;
        assert_eq!(reply.status, 416, "{range}");
        assert_eq!(reply.header("content-range"), format!("bytes */{size}"));
    }
}

#[tokio::test]
async fn an_empty_item_is_an_answer() {
    let stage = Stage::new().await;
    stage.write("empty.txt", b"");
    let reply = stage.get("empty.txt", &[]).await;
    assert_eq!((reply.status, reply.header("content-length")), (200, "0"));
    assert_eq!(stage.get("empty.txt", &["Range: bytes=0-"]).await.status, 416);
}

#[tokio::test]
async fn conditions_follow_the_state_of_the_item() {
    let stage = Stage::new().await;
    stage.write("film.mp4", b"first");
    let etag = stage.get("film.mp4", &[]).await.header("etag").to_owned();
    let (none, range) = (format!("If-None-Match: {etag}"), format!("If-Range: {etag}"));
    let matching = format!("If-Match: {etag}");
    let ask = async |more: &[&str]| {
        let reply = stage.get("film.mp4", more).await;
        (reply.status, reply.text())
    };
    assert_eq!(ask(&[&none]).await, (304, String::new()));
    assert_eq!(ask(&[&range, "Range: bytes=0-1"]).await, (206, "fi".to_owned()));
    assert_eq!(ask(&[&matching]).await, (200, "first".to_owned()));
    stage.write("film.mp4", b"second!");
    stage.gateway.site.blocks.forget(&path("film.mp4"));
    assert_eq!(ask(&[&none]).await, (200, "second!".to_owned()));
    assert_eq!(ask(&[&range, "Range: bytes=0-1"]).await, (200, "second!".to_owned()));
    assert_eq!(ask(&[&matching]).await, (412, String::new()));
}

#[tokio::test]
async fn whoever_lacks_the_token_or_another_name_led_here_gets_nothing() {
    let stage = Stage::new().await;
    stage.write("a", b"secret");
    let good = stage.target("a");
    let token = &stage.gateway.site.token;
    assert!(token.len() == 32 && good == format!("/{token}/a"), "{good}");
    let short = format!("/{}/a", &token[..31]);
    let longer = format!("/{token}0/a");
    let folder = format!("/{token}");
    for target in ["/", "/a", "//a", "/favicon.ico", &short, &longer, &folder, "/../a", "/%00/a"] {
        let reply = stage.ask("GET", target, &[]).await;
        assert_eq!((reply.status, reply.text().as_str()), (404, "not found\n"), "{target}");
    }
    let port = stage.gateway.site.here.port();
    for (host, status) in [
        (format!("127.0.0.1:{port}"), 200),
        (format!("localhost:{port}"), 200),
        (format!("LocalHost:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        ("127.0.0.1".to_owned(), 421),
        ("localhost:1".to_owned(), 421),
        (format!("evil.example:{port}"), 421),
        (format!("127.0.0.1.evil.example:{port}"), 421),
        (String::new(), 421),
    ] {
        let reply = stage.ask("GET", &good, &[&format!("Host: {host}")]).await;
        assert_eq!(reply.status, status, "{host}");
        assert_eq!(reply.text().contains("secret"), status == 200, "{host}");
    }
    let (one, two) = (format!("Host: {}", stage.host()), "Host: evil.example");
    assert_eq!(stage.ask("GET", &good, &[&one, two]).await.status, 421, "two hosts");
    let absolute = format!("http://evil.example:{port}{good}");
    assert_eq!(stage.ask("GET", &absolute, &[]).await.status, 421, "another in the target");
}

#[tokio::test]
async fn every_answer_forbids_to_be_kept_guessed_and_run() {
    let stage = Stage::new().await;
    stage.write("page.html", b"<script>alert(1)</script>");
    let folder = stage.target("");
    for target in [&stage.target("page.html"), &folder, &stage.target("none"), &"/".to_owned()] {
        let reply = stage.ask("GET", target, &[]).await;
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{target}");
        assert_eq!(reply.header("cache-control"), "no-store", "{target}");
        assert_eq!(reply.header("referrer-policy"), "no-referrer", "{target}");
        assert!(!reply.headers.contains_key("access-control-allow-origin"), "{target}");
    }
    let reply = stage.get("page.html", &[]).await;
    assert!(reply.header("content-security-policy").ends_with("; sandbox"), "{reply:?}");
    stage.write("film.mp4", b"");
    let reply = stage.get("film.mp4", &[]).await;
    let policy = reply.header("content-security-policy");
    assert!(policy.contains("media-src 'self'") && !policy.contains("sandbox"), "{policy}");
}

#[tokio::test]
async fn any_name_can_be_listed_watched_and_played() {
    let stage = Stage::new().await;
    let names: [&[u8]; 6] = [
        "trip \u{e9} \"day\" 100%/-readme \u{f1}.txt".as_bytes(),
        b"films/a?b#c&d=e.mp4",
        b"\xff\xfe\n.webm",
        b"<b>'\"&amp;</b>",
        b"a:b\\c%2fd",
        b"..a/...",
    ];
    for name in names {
        stage.write(name, name);
        let reply = stage.get(name, &[]).await;
        assert_eq!((reply.status, reply.body.as_slice()), (200, name), "{name:?}");
        let watch = stage.ask("GET", &format!("{}?watch", stage.target(name)), &[]).await;
        assert_eq!((watch.status, watch.text().contains("<b>")), (200, false), "{name:?}");
        // Every link of every folder on the way leads where its name says.
        let item = path(name);
        let (folder, last) = item.split_last().unwrap();
        let place = if folder.is_root() { String::new() } else { page::encode_path(&folder) + "/" };
        let list = stage.ask("GET", &format!("{}{place}", stage.target("")), &[]).await;
        assert_eq!(list.status, 200, "{name:?}");
        let link = format!("href=\"./{}?watch\"", page::encode(last));
        assert!(list.text().contains(&link), "{link} in {}", list.text());
    }
    let folder = stage.get("films", &[]).await;
    assert_eq!((folder.status, folder.header("location")), (301, "./films/"));
}

#[tokio::test]
async fn what_cannot_be_played_is_said_in_one_line() {
    let stage = Stage::new().await;
    stage.write("a", b"a");
    std::os::unix::fs::symlink("/etc/passwd", stage.folder.path().join("out")).unwrap();
    let target = stage.target("");
    let cases = [
        ("GET", "none", 404),
        ("GET", "none/", 404),
        ("GET", "a/", 404),
        ("GET", "a/b", 404),
        ("GET", "%2e%2e", 404),
        ("GET", "../a", 404),
        ("GET", "a%2fb", 404),
        ("GET", "out", 403),
        ("POST", "a", 405),
        ("OPTIONS", "a", 405),
        ("DELETE", "a", 405),
    ];
    for (method, name, status) in cases {
        let reply = stage.ask(method, &format!("{target}{name}"), &[]).await;
        assert_eq!((reply.status, reply.text().lines().count()), (status, 1), "{method} {name}");
    }
}

#[tokio::test]
async fn connections_without_the_token_hold_up_no_player() {
    let stage = Stage::new().await;
    stage.write("a", b"a");
    let mut silent = Vec::new();
    for _ in 0..700 {
        silent.push(TcpStream::connect(stage.gateway.site.here).await.unwrap());
    }
    let reply = stage.get("a", &[]).await;
    assert_eq!((reply.status, reply.body.as_slice()), (200, b"a".as_slice()));
}
