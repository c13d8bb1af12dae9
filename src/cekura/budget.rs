//! The request budget of one API: a token bucket, a limit of requests in flight, and a pause that the upstream
//! asked for. Reads no clock: callers pass the time.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Requests per second, from [`Rate::MIN`] to [`Rate::MAX`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(f64);

/// When the next request to one API may be sent.
#[derive(Debug)]
pub struct Budget {
    rate: Rate,
    /// Tokens in the bucket at `counted`. Never more than [`Rate::burst`].
    tokens: f64,
    counted: Instant,
    max_in_flight: NonZeroU32,
    in_flight: u32,
    paused_until: Option<Instant>,
}

// === impl Rate ===

impl Rate {
    /// The smallest valid rate: one request in 17 minutes.
    pub const MIN: f64 = 0.001;

    /// The largest valid rate.
    pub const MAX: f64 = 1_000_000.0;

    /// The rate of an API without one in the configuration.
    pub const DEFAULT: Self = Self(10.0);

    /// Parses a rate.
    ///
    /// # Errors
    /// What is wrong with the rate, as a sentence for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        text.parse()
            .ok()
            .filter(|rate| plain && (Self::MIN..=Self::MAX).contains(rate))
            .map(Self)
            .ok_or_else(|| format!("is not a rate: a number from {} to {}, like 10 or 0.5", Self::MIN, Self::MAX))
    }

    /// Requests per second.
    pub fn per_second(self) -> f64 {
        self.0
    }

    /// The rate of each of several exporters that share this one.
    #[must_use]
    pub fn shared_by(self, exporters: NonZeroU32) -> Self {
        Self(self.0 / f64::from(exporters.get()))
    }

    /// The size of the bucket: the requests of one second, and at least one.
    fn burst(self) -> f64 {
        self.0.max(1.0)
    }
}

// === impl Budget ===

impl Budget {
    /// How far the tokens may fall short of 1 because of rounding.
    const ROUNDING: f64 = 1e-6;

    /// A full bucket.
    pub fn new(rate: Rate, max_in_flight: NonZeroU32, now: Instant) -> Self {
        Self { rate, tokens: rate.burst(), counted: now, max_in_flight, in_flight: 0, paused_until: None }
    }

    /// Changes the rate and the limit. Requests in flight and spent tokens still count.
    pub fn set(&mut self, rate: Rate, max_in_flight: NonZeroU32, now: Instant) {
        self.refill(now);
        self.rate = rate;
        self.max_in_flight = max_in_flight;
        self.refill(now);
    }

    /// Ends a pause.
    pub fn unpause(&mut self) {
        self.paused_until = None;
    }

    /// Starts a request, if the budget allows one now. Call [`Budget::ended`] when it has ended.
    pub fn try_start(&mut self, now: Instant) -> bool {
        self.refill(now);
        let token = self.tokens >= 1.0 - Self::ROUNDING;
        let free = token && self.in_flight < self.max_in_flight.get() && self.paused(now).is_none();
        if free {
            self.tokens -= 1.0;
            self.in_flight += 1;
        }
        free
    }

    /// Records that a request has ended.
    pub fn ended(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Records a request that was sent without [`Budget::try_start`]. It delays the next one.
    pub fn spend(&mut self, now: Instant) {
        self.refill(now);
        self.tokens -= 1.0;
    }

    /// Whether no request is in flight.
    pub fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// Empties the bucket, so that requests continue at the rate without a burst.
    pub fn spend_burst(&mut self, now: Instant) {
        self.refill(now);
        self.tokens = self.tokens.min(0.0);
    }

    /// Holds back all requests for the duration of `pause`. Does not shorten a pause that lasts longer.
    pub fn pause(&mut self, now: Instant, pause: Duration) {
        let until = now + pause;
        self.paused_until = Some(self.paused_until.map_or(until, |old| old.max(until)));
    }

    /// The end of the current pause; `None` if there is none.
    pub fn paused(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    /// The earliest time at which a request may start; `None` while the limit of requests in flight is reached.
    pub fn next_start(&mut self, now: Instant) -> Option<Instant> {
        if self.in_flight >= self.max_in_flight.get() {
            return None;
        }
        self.refill(now);
        let missing = (1.0 - self.tokens).max(0.0);
        let token_at = now + Duration::from_secs_f64(missing / self.rate.0);
        Some(self.paused(now).map_or(token_at, |until| until.max(token_at)))
    }

    fn refill(&mut self, now: Instant) {
        let earned = now.saturating_duration_since(self.counted).as_secs_f64() * self.rate.0;
        self.tokens = (self.tokens + earned).min(self.rate.burst());
        self.counted = self.counted.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn budget(rate: &str, max_in_flight: u32, now: Instant) -> Budget {
        Budget::new(Rate::parse(rate).unwrap(), NonZeroU32::new(max_in_flight).unwrap(), now)
    }

    #[test]
    fn the_bucket_holds_one_second_and_refills_at_the_rate() {
        let start = Instant::now();
        let mut budget = budget("2", 100, start);
        assert!(budget.try_start(start) && budget.try_start(start) && !budget.try_start(start));
        let next = budget.next_start(start).unwrap();
        assert_eq!(next - start, Duration::from_millis(500));
        assert!(budget.try_start(next) && !budget.try_start(next));
    }

    #[test]
    fn a_rate_below_one_allows_single_requests() {
        let start = Instant::now();
        let mut budget = budget("0.5", 100, start);
        assert!(budget.try_start(start) && !budget.try_start(start));
        assert_eq!(budget.next_start(start).unwrap() - start, Duration::from_secs(2));
    }

    #[test]
    fn the_limit_in_flight_holds_until_a_request_ends() {
        let start = Instant::now();
        let mut budget = budget("100", 1, start);
        assert!(budget.try_start(start) && !budget.try_start(start));
        assert_eq!(budget.next_start(start), None);
        budget.ended();
        assert!(budget.try_start(start));
    }

    #[test]
    fn a_shorter_pause_does_not_end_a_longer_one() {
        let start = Instant::now();
        let mut budget = budget("100", 9, start);
        budget.pause(start, Duration::from_secs(9));
        budget.pause(start, Duration::from_secs(2));
        assert!(!budget.try_start(start + Duration::from_secs(8)));
        assert_eq!(budget.next_start(start), Some(start + Duration::from_secs(9)));
        assert!(budget.try_start(start + Duration::from_secs(9)));
        assert_eq!(budget.paused(start + Duration::from_secs(9)), None);
    }

    #[test]
    fn after_the_burst_is_spent_requests_continue_at_the_rate() {
        let start = Instant::now();
        let mut budget = budget("10", 100, start);
        budget.spend_burst(start);
        assert!(!budget.try_start(start));
        assert_eq!(budget.next_start(start).unwrap() - start, Duration::from_millis(100));
    }

    #[test]
    fn another_rate_gives_no_second_burst_and_requests_in_flight_still_count() {
        let start = Instant::now();
        let mut budget = budget("10", 1, start);
        assert!(budget.try_start(start));
        budget.set(Rate::parse("2").unwrap(), NonZeroU32::new(9).unwrap(), start);
        assert!(budget.try_start(start) && budget.try_start(start) && !budget.try_start(start));
        budget.set(Rate::parse("100").unwrap(), NonZeroU32::new(3).unwrap(), start);
        assert!(!budget.try_start(start) && budget.next_start(start).is_none(), "three are under way");
        budget.ended();
        assert_eq!(budget.next_start(start).unwrap() - start, Duration::from_millis(10));
    }

    #[test]
    fn rates_are_positive_plain_numbers() {
        for good in ["1", "0.5", "10", "1000000"] {
            assert!(Rate::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "0", "0.0", "-1", "+1", "nan", "inf", "1e3", "1000001", "0.0001", "1.1.1", " 1"] {
            assert!(Rate::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_window_sees_more_than_the_rate_and_one_burst(
            rate in 1u32..50, steps in proptest::collection::vec(0u64..400, 1..200)
        ) {
            let start = Instant::now();
            let mut budget = budget(&rate.to_string(), 1_000_000, start);
            let (mut now, mut started) = (start, 0u32);
            for step in steps {
                now += Duration::from_millis(step);
                while budget.try_start(now) {
                    started += 1;
                }
                let most = f64::from(rate) * (now - start).as_secs_f64() + f64::from(rate);
                prop_assert!(f64::from(started) <= most + 1e-6);
                prop_assert!(budget.next_start(now).unwrap() > now);
            }
        }
    }
}
