//! Words that some part of the tree must not say (R2, R3).

use crate::{Finding, finding, source::Source};

/// Words that some part of the tree must not say.
struct Ban {
    /// Paths that start with one of these are searched.
    within: &'static [&'static str],
    /// Except those that contain one of these.
    except: &'static [&'static str],
    in_tests: bool,
    words: &'static [&'static str],
    instead: &'static str,
}

const EVERYWHERE: &[&str] = &[""];
pub(crate) const PURE: &[&str] = &["cabo-proto/"];

const BANS: &[Ban] = &[
    Ban {
        within: EVERYWHERE,
        except: &[],
        in_tests: true,
        words: &["todo!", "unimplemented!", "dbg!"],
        instead: "do it now, return a typed error, or write an issue",
    },
    Ban {
        within: PURE,
        except: &[],
        in_tests: true,
        words: &["SystemTime", "sleep", "tokio", "async", "await"],
        instead: "R2: time is an argument; take `now: Instant`, return a deadline",
    },
    Ban {
        within: PURE,
        except: &[],
        in_tests: true,
        words: &["std::net", "std::thread", "libc", "rustix", "socket2"],
        instead: "R2: bytes in, bytes out; sockets and threads are in `cabo`",
    },
    Ban {
        within: PURE,
        except: &[],
        in_tests: false, // which may read vectors
        words: &["std::fs", "std::env", "std::process", "std::os"],
        instead: "R2: bytes in, bytes out; files and processes are in `cabo`",
    },
    Ban {
        within: PURE,
        except: &[],
        in_tests: true,
        words: &["Rng::new", "RandomState", "getrandom", "OsRng", "thread_rng"],
        instead: "R2: chance is an argument; take `Chance`, or `Rng::with_seed` in tests and `sim`",
    },
    Ban {
        within: &["cabo/src/", "cabo-cli/src/"],
        except: &["carrier/tap.rs", "show/log.rs", "keys/certificate.rs"], // which have a date for whoever reads them
        in_tests: false,
        words: &["SystemTime::now", "UNIX_EPOCH", "UnixTime::now", "clock_gettime", "gettimeofday"],
        instead: "R7: the wall clock steps, back too; measure with `Instant`",
    },
    Ban {
        within: &["cabo-proto/", "cabo-cli/"],
        except: &[],
        in_tests: true,
        words: &["unsafe"],
        instead: "`unsafe` stands only in `cabo`, where a system call has no safe crate",
    },
    Ban {
        within: &["cabo-proto/src/", "cabo/src/"],
        except: &[],
        in_tests: false,
        words: &["println!", "print!", "eprintln!", "eprint!"],
        instead: "a library does not print; return it, or trace it",
    },
    Ban {
        within: &["cabo-cli/src/"],
        except: &[],
        in_tests: false,
        words: &["println!", "print!"],
        instead: "it panics when the pipe closes; write to the handle and take EPIPE for the end",
    },
    Ban {
        within: &["cabo/src/"],
        // The gateway and the metrics speak HTTP to programs that are no peers.
        except: &[
            "src/carrier",
            "src/lab",
            "gateway",
            "cabo/src/relay",
            "cabo/src/server/metrics.rs",
        ],
        in_tests: false,
        words: &[
            "socket2",
            "UdpSocket",
            "TcpStream",
            "TcpListener",
            "UnixStream",
            "UnixListener",
            "UnixDatagram",
            "unshare",
            "setns",
        ],
        instead: "R3: only `carrier/`, `relay/` and `lab/` name a socket or a namespace; ask a carrier",
    },
    Ban {
        within: &["cabo/src/carrier"],
        except: &[],
        in_tests: false,
        words: &[
            "crate::endpoint",
            "crate::client",
            "crate::server",
            "crate::stream",
            "crate::service",
        ],
        instead: "R3: service -> client, server, stream -> endpoint -> carrier, never back",
    },
    Ban {
        within: &["cabo/src/endpoint"],
        except: &[],
        in_tests: false,
        words: &["crate::client", "crate::server", "crate::service"],
        instead: "R3: service -> client, server, stream -> endpoint -> carrier, never back",
    },
    Ban {
        within: &["cabo/src/client", "cabo/src/server", "cabo/src/stream"],
        except: &[],
        in_tests: false,
        words: &["crate::service"],
        instead: "R3: service -> client, server, stream -> endpoint -> carrier, never back",
    },
    Ban {
        within: &["cabo/src/service"],
        except: &[],
        in_tests: false,
        words: &["crate::carrier"],
        instead: "R3: a service is built on the public API alone: client, server, stream",
    },
    Ban {
        within: &["cabo/src/observe"],
        except: &[],
        in_tests: false,
        words: &[
            "crate::endpoint",
            "crate::client",
            "crate::server",
            "crate::stream",
            "crate::service",
        ],
        instead: "R3: observe looks, never touches: it reads `wire` and what a tap copied",
    },
];

pub(crate) fn banned_words(source: &Source) -> Vec<Finding> {
    let applies = |ban: &&Ban| {
        let is_within = ban.within.iter().any(|prefix| source.path.starts_with(prefix));
        source.is_rust() && is_within && !ban.except.iter().any(|part| source.path.contains(part))
    };
    let bans: Vec<&Ban> = BANS.iter().filter(applies).collect();
    let mut found = Vec::new();
    for path in source.paths() {
        for ban in bans.iter().filter(|ban| ban.in_tests || !source.is_test(path.line)) {
            if let Some(word) = ban.words.iter().find(|word| says(&path.text, word)) {
                found.push(finding(source, path.line, format!("`{word}`: {}", ban.instead)));
            }
        }
        let global_generator =
            path.text.strip_prefix("fastrand::").and_then(|name| name.chars().next());
        if source.path.starts_with(PURE[0]) && global_generator.is_some_and(char::is_lowercase) {
            let text = format!(
                "`{}` is seeded by the system: R2: take a seeded `fastrand::Rng`",
                path.text
            );
            found.push(finding(source, path.line, text));
        }
    }
    found
}

/// True if the segments of `word` stand together in `path`: `std::net::IpAddr` says `std::net`, `std::network` not.
pub(crate) fn says(path: &str, word: &str) -> bool {
    let (path, word): (Vec<&str>, Vec<&str>) =
        (path.split("::").collect(), word.split("::").collect());
    path.windows(word.len()).any(|window| window == word)
}
