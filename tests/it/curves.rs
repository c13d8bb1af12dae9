//! The picture of what the exporter costs.

use std::fs;
use std::path::Path;

#[path = "../../benches/curves/drawing.rs"]
mod drawing;

#[test]
fn the_picture_of_the_costs_is_drawn_from_the_figures_beside_it() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let drawn = drawing::draw(&fs::read_to_string(docs.join("cost.csv")).unwrap()).unwrap();
    let shown = fs::read_to_string(docs.join("cost.svg")).unwrap();
    assert!(drawn == shown, "docs/cost.svg is another picture; `cargo bench --bench curves -- draw` draws it");
}

#[test]
fn figures_that_cannot_be_drawn_are_refused() {
    for csv in ["", drawing::COLUMNS, "a,b\n1,2", &format!("{}\n10,1,1,1,1,1,0\n", drawing::COLUMNS)] {
        assert!(drawing::draw(csv).is_err(), "{csv}");
    }
}
