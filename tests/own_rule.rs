//! `examples/own_rule.rs` does what it says.

#[path = "../examples/own_rule.rs"]
mod own_rule;

#[test]
fn a_rule_of_ones_own_trains_through_the_library() {
    let (before, after) = own_rule::train(600).unwrap();
    assert!(before > 80.0 && after < 25.0, "{before} {after}");
}
