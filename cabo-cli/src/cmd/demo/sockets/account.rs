//! From arrivals to what they come to: lost, doubled, out of order, late. Pure, so that it can be tested.

use std::time::Duration;

/// One message that arrived, with times since the scene began.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Arrival {
    pub(crate) number: u32,
    /// When it was given to the socket, as it says itself.
    pub(crate) sent: Duration,
    /// When the program at the other end had it.
    pub(crate) arrived: Duration,
}

impl Arrival {
    fn latency(&self) -> Duration {
        self.arrived.saturating_sub(self.sent)
    }
}

/// What became of the messages that went one way.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Account {
    pub(crate) sent: u32,
    /// Different messages that arrived; with those lost, all that were sent.
    pub(crate) arrived: u32,
    pub(crate) lost: u32,
    /// Copies beyond the first.
    pub(crate) doubled: u32,
    /// Messages that arrived after one that was sent later.
    pub(crate) out_of_order: u32,
    /// Messages that took longer than they may.
    pub(crate) late: u32,
    /// How long half, 99 of 100, and all of those that arrived took at most.
    pub(crate) half: Duration,
    pub(crate) most: Duration,
    pub(crate) longest: Duration,
}

impl Account {
    /// Of `sent` messages, numbered from 0, and of arrivals in their order. A number that was never sent is no message.
    pub(crate) fn of(sent: u32, arrivals: &[Arrival], late_after: Duration) -> Self {
        let mut is_here = vec![false; sent as usize];
        let mut latencies = Vec::new();
        let mut account = Self { sent, ..Self::default() };
        let mut newest = None;
        for arrival in arrivals {
            match is_here.get_mut(arrival.number as usize) {
                None => continue,
                Some(true) => account.doubled += 1,
                Some(is_here) => {
                    *is_here = true;
                    latencies.push(arrival.latency());
                    account.out_of_order += u32::from(newest > Some(arrival.number));
                    newest = newest.max(Some(arrival.number));
                }
            }
        }
        latencies.sort_unstable();
        account.arrived = latencies.len() as u32; // no more than `sent`
        account.lost = sent - account.arrived;
        account.late = latencies.iter().filter(|latency| **latency > late_after).count() as u32;
        account.half = share(&latencies, 50);
        account.most = share(&latencies, 99);
        account.longest = share(&latencies, 100);
        account
    }

    /// Whether all arrived once, each in its place.
    pub(crate) fn is_perfect(&self) -> bool {
        (self.lost, self.doubled, self.out_of_order) == (0, 0, 0)
    }
}

/// The latency that so many of a hundred did not exceed.
fn share(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// A stretch of time in equal columns.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Window {
    pub(crate) from: Duration,
    pub(crate) column: Duration,
}

impl Window {
    /// The stretch around the longest silence of a stream, in columns no shorter than `least`: two columns before it, and
    /// what came at its end in one of the last.
    pub(crate) fn around_silence(arrivals: &[Arrival], least: Duration, columns: u32) -> Self {
        let silences = arrivals.windows(2).filter_map(|pair| {
            let [before, after] = pair else { return None };
            Some((after.arrived.saturating_sub(before.arrived), before.arrived))
        });
        let (silence, from) = silences.max().unwrap_or_default();
        let inside = columns.saturating_sub(4).max(1);
        let millis = silence.as_millis().div_ceil(inside.into()) as u64; // of a scene that lasts for seconds
        let column = Duration::from_millis(millis).max(least);
        Self { from: from.saturating_sub(column), column }
    }

    /// The numbers that fall into a column, by the time that `time` gives.
    pub(crate) fn numbers(
        &self,
        at: u32,
        arrivals: &[Arrival],
        time: impl Fn(&Arrival) -> Duration,
    ) -> Vec<u32> {
        let from = self.from + self.column * at;
        let inside = from..from + self.column;
        arrivals.iter().filter(|a| inside.contains(&time(a))).map(|a| a.number).collect()
    }
}

/// Numbers as a cell shows them: `84-91` for a run, `84~91` where some of those are missing, doubled or overtaken, two as
/// they are; a dot for none.
pub(crate) fn cell(numbers: &[u32]) -> String {
    let is_run =
        numbers.windows(2).all(|pair| matches!(pair, [a, b] if a.checked_add(1) == Some(*b)));
    match (numbers, numbers.iter().min(), numbers.iter().max()) {
        ([], ..) | (_, None, _) | (_, _, None) => ".".to_owned(),
        ([only], ..) => only.to_string(),
        (_, Some(first), Some(last)) if is_run => format!("{first}-{last}"),
        ([one, other], ..) => format!("{one} {other}"),
        (_, Some(first), Some(last)) => format!("{first}~{last}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn arrivals(numbers: &[(u32, u32)]) -> Vec<Arrival> {
        let arrival = |&(number, at): &(u32, u32)| Arrival {
            number,
            sent: MS * 10 * number,
            arrived: MS * at,
        };
        numbers.iter().map(arrival).collect()
    }

    #[test]
    fn lost_doubled_and_overtaken_messages_are_told_apart() {
        let came = arrivals(&[(0, 20), (2, 40), (1, 41), (2, 42), (4, 100), (99, 101)]);
        let account = Account::of(5, &came, MS * 30);
        let wanted = Account {
            sent: 5,
            arrived: 4,
            lost: 1,
            doubled: 1,
            out_of_order: 1,
            late: 2,
            half: MS * 20,
            most: MS * 60,
            longest: MS * 60,
        };
        assert_eq!(account, wanted);
        assert!(!account.is_perfect());
        assert!(Account::of(1, &came[..1], MS * 30).is_perfect());
        assert_eq!(Account::of(3, &[], MS).lost, 3);
        assert_eq!(Account::of(0, &came, MS), Account::default());
    }

    #[test]
    fn the_window_shows_the_longest_silence_and_what_came_at_its_end() {
        let came = arrivals(&[(0, 20), (1, 30), (2, 110), (3, 110), (4, 111)]);
        let window = Window::around_silence(&came, MS * 10, 12);
        assert_eq!(window, Window { from: MS * 20, column: MS * 10 });
        let columns: Vec<String> =
            (0..12).map(|at| cell(&window.numbers(at, &came, |a| a.arrived))).collect();
        assert_eq!(columns.join(" "), "0 1 . . . . . . . 2-4 . .");
        let wide = Window::around_silence(&came, MS, 8);
        assert_eq!(wide.column, MS * 20);
        assert_eq!(Window::around_silence(&[], MS * 5, 8).column, MS * 5);
    }

    #[test]
    fn a_cell_says_which_numbers_came() {
        for (numbers, wanted) in [
            (&[][..], "."),
            (&[7], "7"),
            (&[84, 85, 86], "84-86"),
            (&[85, 84], "85 84"),
            (&[85, 85], "85 85"),
            (&[101, 103, 102], "101~103"),
            (&[101, 102, 104], "101~104"),
            (&[u32::MAX, 0], "4294967295 0"),
        ] {
            assert_eq!(cell(numbers), wanted);
        }
    }
}
