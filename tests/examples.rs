//! The examples do what they say, each with a part that is not in the library.

#[path = "../examples/own_loss.rs"]
mod own_loss;
#[path = "../examples/own_rule.rs"]
mod own_rule;
#[path = "../examples/own_synapse.rs"]
mod own_synapse;

#[test]
fn a_rule_of_ones_own_trains_through_the_library() {
    let (before, after) = own_rule::train(600).unwrap();
    assert!(before > 80.0 && after < 25.0, "{before} {after}");
}

#[test]
fn a_synapse_of_ones_own_keeps_its_bounds_and_learns() {
    let (error, largest) = own_synapse::train(600).unwrap();
    assert!(error < 45.0, "{error}");
    assert!((0.149..=0.1501).contains(&largest), "{largest}");
}

#[test]
fn a_loss_of_ones_own_pulls_where_it_falls() {
    let (error, off) = own_loss::train(600).unwrap();
    assert!(error < 25.0, "{error}");
    assert!(off < 1e-12, "{off}");
}
