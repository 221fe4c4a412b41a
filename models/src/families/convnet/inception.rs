//! Inception v3 (Szegedy et al. 2015).

use std::sync::Arc;

use super::{Common, HEAD, Module, Named, STEM, classify, result};
use crate::blocks::{
    ConvolutionNames, Feature, InPlace, Normed, Window, average_pool, concatenate, conv_norm,
    convolution_names, dropout, global_average_pool, max_pool,
};
use crate::document::Section;
use crate::error::ModelError;
use crate::families::Architecture;
use crate::model::LayerRole;
use crate::tape::{Tape, names};

/// Windows of the modules' convolutions.
const ONE: Window = Window::PIXEL;
const THREE: Window = Window::same(3, 1);
const FIVE: Window = Window::same(5, 1);
const ONE_BY_THREE: Window = Window::oblong(1, 3);
const THREE_BY_ONE: Window = Window::oblong(3, 1);
const ONE_BY_SEVEN: Window = Window::oblong(1, 7);
const SEVEN_BY_ONE: Window = Window::oblong(7, 1);
/// 3x3 without padding, at every pixel or at every second.
const VALID: Window = Window::square(3, 1, 0);
const REDUCE: Window = Window::square(3, 2, 0);

/// The classifier at the side, in training only; its parameters are there always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Auxiliary {
    classes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Stem,
    /// `InceptionA`: 5x5 beside two 3x3.
    A {
        pool: u64,
    },
    /// `InceptionB`: half the pixels a side.
    B,
    /// `InceptionC`: 7x7 in two steps, `inner` channels wide.
    C {
        inner: u64,
    },
    /// `InceptionD`: half the pixels a side; the auxiliary classifier takes the same input.
    D {
        auxiliary: Option<Auxiliary>,
    },
    /// `InceptionE`: branches that branch.
    E,
    Head {
        classes: u64,
        drops: bool,
    },
}

/// Fields: `auxiliary` (whether there is the classifier at the side), `dropout`, and the common ones. The layer
/// `Mixed_7a` has the auxiliary classifier, whose loss joins backward there.
pub(in crate::families) fn read(section: &Section) -> Result<Arc<dyn Architecture>, ModelError> {
    section.only(&[&["auxiliary", "dropout"][..], &Common::FIELDS].concat())?;
    let common = Common::read(section)?;
    let classes = common.classes;
    let drops = section.flag("dropout", true)?;
    let auxiliary = section.flag("auxiliary", true)?.then_some(Auxiliary { classes });
    if auxiliary.is_some() && classes == 0 {
        return Err(section.refuse("classes", classes, "at least 1 with the auxiliary classifier"));
    }
    let block = |name: &str, part| (name.to_owned(), LayerRole::Block, part);
    let layers: Vec<Named<Part>> = vec![
        (STEM.to_owned(), LayerRole::Embedding, Part::Stem),
        block("Mixed_5b", Part::A { pool: 32 }),
        block("Mixed_5c", Part::A { pool: 64 }),
        block("Mixed_5d", Part::A { pool: 64 }),
        block("Mixed_6a", Part::B),
        block("Mixed_6b", Part::C { inner: 128 }),
        block("Mixed_6c", Part::C { inner: 160 }),
        block("Mixed_6d", Part::C { inner: 160 }),
        block("Mixed_6e", Part::C { inner: 192 }),
        block("Mixed_7a", Part::D { auxiliary }),
        block("Mixed_7b", Part::E),
        block("Mixed_7c", Part::E),
        (HEAD.to_owned(), LayerRole::Head, Part::Head { classes, drops }),
    ];
    common.chain(section, layers)
}

impl Module for Part {
    fn forward(&self, tape: &mut Tape<'_>, x: Feature) -> Feature {
        match *self {
            Self::Stem => stem(tape, x),
            Self::A { pool } => module_a(tape, x, pool),
            Self::B => module_b(tape, x),
            Self::C { inner } => module_c(tape, x, inner),
            Self::D { auxiliary } => {
                let fits = auxiliary.is_none_or(|it| classify_aside(tape, x, it.classes));
                let y = module_d(tape, x);
                // In torchvision the classifier at the side fails on images that leave it no pixel.
                if fits { y } else { Feature { height: 0, ..y } }
            }
            Self::E => module_e(tape, x),
            Self::Head { classes, drops } => {
                let pooled = global_average_pool(tape, names!("head.pool"), x);
                let features = dropout(tape, names!("head.dropout"), pooled.flat(), drops);
                let logits = classify(tape, "fc", classes, features);
                result(x, logits)
            }
        }
    }
}

/// Convolutions one after the other, each with batch norm and ReLU: name, channels, window.
fn branch(
    tape: &mut Tape<'_>,
    names: &ConvolutionNames,
    x: Feature,
    convolutions: &[(&str, u64, Window)],
) -> Feature {
    let mut x = x;
    for &(name, channels, window) in convolutions {
        let modules = [format!("{name}.conv"), format!("{name}.bn")];
        let layer = Normed::new(channels, window, InPlace::Relu);
        x = conv_norm(tape, [&modules[0], &modules[1]], names, &layer, x);
    }
    x
}

fn stem(tape: &mut Tape<'_>, x: Feature) -> Feature {
    let names = &convolution_names!("stem.conv");
    let first = [("Conv2d_1a_3x3", 32, REDUCE), ("Conv2d_2a_3x3", 32, VALID), ("Conv2d_2b_3x3", 64, THREE)];
    let x = branch(tape, names, x, &first);
    let x = max_pool(tape, names!("stem.max_pool"), REDUCE, x);
    let x = branch(tape, names, x, &[("Conv2d_3b_1x1", 80, ONE), ("Conv2d_4a_3x3", 192, VALID)]);
    max_pool(tape, names!("stem.max_pool"), REDUCE, x)
}

fn module_a(tape: &mut Tape<'_>, x: Feature, pool: u64) -> Feature {
    let single = branch(tape, &convolution_names!("branch1x1"), x, &[("branch1x1", 64, ONE)]);
    let five = [("branch5x5_1", 48, ONE), ("branch5x5_2", 64, FIVE)];
    let five = branch(tape, &convolution_names!("branch5x5"), x, &five);
    let double = [("branch3x3dbl_1", 64, ONE), ("branch3x3dbl_2", 96, THREE), ("branch3x3dbl_3", 96, THREE)];
    let double = branch(tape, &convolution_names!("branch3x3dbl"), x, &double);
    let pooled = pooled_branch(tape, x, pool);
    concatenate(tape, names!("concatenate"), single, &[five, double, pooled])
}

fn module_b(tape: &mut Tape<'_>, x: Feature) -> Feature {
    let three = branch(tape, &convolution_names!("branch3x3"), x, &[("branch3x3", 384, REDUCE)]);
    let double = [("branch3x3dbl_1", 64, ONE), ("branch3x3dbl_2", 96, THREE), ("branch3x3dbl_3", 96, REDUCE)];
    let double = branch(tape, &convolution_names!("branch3x3dbl"), x, &double);
    let pooled = max_pool(tape, names!("branch_pool"), REDUCE, x);
    concatenate(tape, names!("concatenate"), three, &[double, pooled])
}

fn module_c(tape: &mut Tape<'_>, x: Feature, inner: u64) -> Feature {
    let single = branch(tape, &convolution_names!("branch1x1"), x, &[("branch1x1", 192, ONE)]);
    let seven = [
        ("branch7x7_1", inner, ONE),
        ("branch7x7_2", inner, ONE_BY_SEVEN),
        ("branch7x7_3", 192, SEVEN_BY_ONE),
    ];
    let seven = branch(tape, &convolution_names!("branch7x7"), x, &seven);
    let double = [
        ("branch7x7dbl_1", inner, ONE),
        ("branch7x7dbl_2", inner, SEVEN_BY_ONE),
        ("branch7x7dbl_3", inner, ONE_BY_SEVEN),
        ("branch7x7dbl_4", inner, SEVEN_BY_ONE),
        ("branch7x7dbl_5", 192, ONE_BY_SEVEN),
    ];
    let double = branch(tape, &convolution_names!("branch7x7dbl"), x, &double);
    let pooled = pooled_branch(tape, x, 192);
    concatenate(tape, names!("concatenate"), single, &[seven, double, pooled])
}

fn module_d(tape: &mut Tape<'_>, x: Feature) -> Feature {
    let three = [("branch3x3_1", 192, ONE), ("branch3x3_2", 320, REDUCE)];
    let three = branch(tape, &convolution_names!("branch3x3"), x, &three);
    let seven = [
        ("branch7x7x3_1", 192, ONE),
        ("branch7x7x3_2", 192, ONE_BY_SEVEN),
        ("branch7x7x3_3", 192, SEVEN_BY_ONE),
        ("branch7x7x3_4", 192, REDUCE),
    ];
    let seven = branch(tape, &convolution_names!("branch7x7x3"), x, &seven);
    let pooled = max_pool(tape, names!("branch_pool"), REDUCE, x);
    concatenate(tape, names!("concatenate"), three, &[seven, pooled])
}

fn module_e(tape: &mut Tape<'_>, x: Feature) -> Feature {
    let single = branch(tape, &convolution_names!("branch1x1"), x, &[("branch1x1", 320, ONE)]);
    let three = branch(tape, &convolution_names!("branch3x3"), x, &[("branch3x3_1", 384, ONE)]);
    let three = fork(tape, &convolution_names!("branch3x3"), three, ["branch3x3_2a", "branch3x3_2b"]);
    let double = [("branch3x3dbl_1", 448, ONE), ("branch3x3dbl_2", 384, THREE)];
    let double = branch(tape, &convolution_names!("branch3x3dbl"), x, &double);
    let names = &convolution_names!("branch3x3dbl");
    let double = fork(tape, names, double, ["branch3x3dbl_3a", "branch3x3dbl_3b"]);
    let pooled = pooled_branch(tape, x, 192);
    concatenate(tape, names!("concatenate"), single, &[three, double, pooled])
}

/// A row-wise and a column-wise convolution of the same input, joined.
fn fork(tape: &mut Tape<'_>, names: &ConvolutionNames, x: Feature, [row, column]: [&str; 2]) -> Feature {
    let row = branch(tape, names, x, &[(row, 384, ONE_BY_THREE)]);
    let column = branch(tape, names, x, &[(column, 384, THREE_BY_ONE)]);
    concatenate(tape, names!("concatenate"), row, &[column])
}

/// Means of 3x3 pixels, then a convolution.
fn pooled_branch(tape: &mut Tape<'_>, x: Feature, channels: u64) -> Feature {
    let pooled = average_pool(tape, names!("branch_pool.average"), THREE, x);
    branch(tape, &convolution_names!("branch_pool"), pooled, &[("branch_pool", channels, ONE)])
}

/// The auxiliary classifier with its loss, in training. Returns whether a pixel is left of the image.
fn classify_aside(tape: &mut Tape<'_>, x: Feature, classes: u64) -> bool {
    if !tape.shape.training {
        return true;
    }
    let pooled = average_pool(tape, names!("auxiliary.pool"), Window::square(5, 3, 0), x);
    let convolutions = [("AuxLogits.conv0", 128, ONE), ("AuxLogits.conv1", 768, Window::square(5, 1, 0))];
    let y = branch(tape, &convolution_names!("auxiliary.conv"), pooled, &convolutions);
    let mean = global_average_pool(tape, names!("auxiliary.mean"), y);
    let loss = classify(tape, "AuxLogits.fc", classes, mean.flat());
    tape.also_start_from(loss);
    !y.is_empty()
}
