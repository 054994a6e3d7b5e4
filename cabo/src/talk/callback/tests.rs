//! Trust that is earned and lost, places on the loop, the watch, the gate. Neighbour: `mod.rs`, by its private parts.

use std::sync::mpsc;

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn callbacks(slots: usize) -> Arc<Callbacks> {
    Arc::new(Callbacks::new(slots, 1, Duration::from_secs(3600)))
}

/// Whether a call of this kind is made on the loop now.
fn is_on_loop(callbacks: &Callbacks, kind: Kind) -> bool {
    let before = callbacks.apart.load(SeqCst);
    callbacks.call(kind, || callbacks.apart.load(SeqCst) == before)
}

/// As many quick calls as it takes. A machine that is busy makes some of them slow.
fn earn(callbacks: &Callbacks, kind: Kind) -> i64 {
    (0..).take_while(|_| !is_on_loop(callbacks, kind)).count() as i64
}

#[test]
fn calls_on_the_loop_are_earned_by_each_kind_for_itself_and_lost_by_one_slow_call() {
    let callbacks = callbacks(1);
    assert!(earn(&callbacks, Kind::Receive) >= EARNING_CALLS);
    assert!(is_on_loop(&callbacks, Kind::Receive));
    assert!(!is_on_loop(&callbacks, Kind::Close));
    callbacks.trust(Kind::Receive).lose();
    assert!(!is_on_loop(&callbacks, Kind::Receive));
    callbacks.call(Kind::Receive, || thread::sleep(SLOW * 2));
    assert!(earn(&callbacks, Kind::Receive) >= PENANCE_CALLS);
}

#[test]
fn what_a_callback_calls_runs_in_its_place_and_a_panic_leaves_the_place_free() {
    let callbacks = callbacks(1);
    earn(&callbacks, Kind::Receive);
    assert!(callbacks.call(Kind::Receive, || is_on_loop(&callbacks, Kind::Close)));
    for _ in 0..3 {
        let panicking = || callbacks.call(Kind::Receive, || panic!("as it was told to"));
        let called: Result<(), _> =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(panicking));
        assert!(called.is_err());
        assert!(is_on_loop(&callbacks, Kind::Receive));
    }
}

#[test]
fn calls_on_the_loop_are_never_more_than_its_places() {
    let callbacks = callbacks(2);
    earn(&callbacks, Kind::Receive);
    let (arrived, arrivals) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    thread::scope(|scope| {
        let (callbacks, released) = (&callbacks, &released);
        for _ in 0..2 {
            let arrived = arrived.clone();
            scope.spawn(move || {
                callbacks.call(Kind::Receive, || {
                    arrived.send(()).unwrap();
                    let _ = released.lock().unwrap().recv(); // until the test lets it go
                });
            });
        }
        (0..2).for_each(|_| arrivals.recv_timeout(PATIENCE).unwrap());
        assert!(!is_on_loop(callbacks, Kind::Receive), "no place is left");
        drop(release);
    });
    assert!(is_on_loop(&callbacks, Kind::Receive));
}

#[test]
fn a_call_that_does_not_return_is_noticed_and_costs_its_kind_the_loop() {
    let callbacks = callbacks(2);
    let (tell, told) = mpsc::channel();
    callbacks.start_watch(move || tell.send(()).unwrap_or_default()).unwrap();
    earn(&callbacks, Kind::Receive);
    let (release, released) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let (entered, entry) = mpsc::channel();
        let sticking = &callbacks;
        scope.spawn(move || {
            while !is_on_loop(sticking, Kind::Receive) {} // the watch may have taken a preempted call for a stuck one
            sticking.call(Kind::Receive, || {
                entered.send(()).unwrap();
                let _ = released.recv(); // until the test lets it go
            });
        });
        entry.recv_timeout(PATIENCE).unwrap();
        told.recv_timeout(PATIENCE).unwrap();
        for _ in 0..2 * PENANCE_CALLS {
            assert!(!is_on_loop(&callbacks, Kind::Receive), "not while one is stuck");
        }
        drop(release);
    });
    earn(&callbacks, Kind::Receive);
}

#[test]
fn the_watch_sleeps_while_nothing_is_called_and_ends_with_its_server() {
    let callbacks = callbacks(1);
    let (alive, ended) = mpsc::channel::<()>();
    callbacks.start_watch(move || drop(alive.clone())).unwrap();
    earn(&callbacks, Kind::Receive);
    let begun = Instant::now();
    while !callbacks.is_watch_asleep.load(SeqCst) {
        assert!(begun.elapsed() < PATIENCE);
        thread::sleep(Duration::from_millis(5));
    }
    assert!(is_on_loop(&callbacks, Kind::Receive));
    drop(callbacks);
    assert_eq!(ended.recv_timeout(PATIENCE), Err(mpsc::RecvTimeoutError::Disconnected));
}

#[test]
fn more_than_hundreds_of_slow_calls_wait_at_the_gate() {
    let callbacks = callbacks(0);
    let mut gate = Gate::default();
    let mut cx = Context::from_waker(Waker::noop());
    let mut all: Vec<Apart<'_>> =
        (0..Callbacks::apart_max(1)).map(|_| Apart::begin(&callbacks, Kind::Receive)).collect();
    assert!(gate.poll(&callbacks, &mut cx).is_pending());
    all.pop();
    assert!(gate.poll(&callbacks, &mut cx).is_ready());
}
