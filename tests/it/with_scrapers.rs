//! Tests that run with several scrapers, each in a module that is called like it.

/// Makes each of these functions a test with each scraper.
macro_rules! with_each_scraper {
    ($($test:ident),* $(,)?) => {
        $crate::with_scrapers::with_scrapers! { prometheus_2: Prometheus2 => $($test),* }
        $crate::with_scrapers::with_scrapers! { prometheus_3: Prometheus3 => $($test),* }
        $crate::with_scrapers::with_scrapers! { victoria_metrics: VictoriaMetrics => $($test),* }
    };
}
pub(crate) use with_each_scraper;

/// Makes each of these functions a test with one scraper, in a module of this name.
macro_rules! with_scrapers {
    ($module:ident: $scraper:ident => $($test:ident),* $(,)?) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test($crate::harness::Scraper::$scraper).await;
                }
            )*
        }
    };
}
pub(crate) use with_scrapers;
