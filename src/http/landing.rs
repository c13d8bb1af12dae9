//! The landing page: what this is, how many toggles there are, and where to look.

use std::fmt::Write as _;

use crate::toggle::Status;

/// The page. All that is on it is ours or a number: it has no text of users or of the upstream.
pub(super) fn page(toggles: &[(Status, usize)], telemetry_path: &str) -> String {
    let [version, revision, _] = crate::BUILD;
    let mut counts = String::new();
    for (status, count) in toggles {
        // Writing to a String cannot fail.
        let _ = writeln!(counts, "<tr><th scope=\"row\">{}</th><td>{count}</td></tr>", status.as_str());
    }
    format!(
        "<!DOCTYPE html>\n\
         <html lang=\"en\">\n\
         <head><meta charset=\"utf-8\"><title>cekura-exporter</title></head>\n\
         <body>\n\
         <h1>cekura-exporter</h1>\n\
         <p>Version {version}, revision {revision}. It watches {} toggles.</p>\n\
         <table>\n<caption>Toggles by status</caption>\n{counts}</table>\n\
         <ul>\n\
         <li><a href=\"{telemetry_path}\">Metrics</a></li>\n\
         <li><a href=\"/api/v1/toggles\">Toggles as JSON</a></li>\n\
         <li><a href=\"/config\">Configuration in force</a></li>\n\
         <li><a href=\"/-/healthy\">Health</a>, <a href=\"/-/ready\">readiness</a></li>\n\
         </ul>\n\
         </body>\n\
         </html>\n",
        toggles.iter().map(|(_, count)| count).sum::<usize>()
    )
}
