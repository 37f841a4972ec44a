//! `network.dims`: the layers of a network as they are written, input first: `[784, 512, 10]`, or with convolutions
//! `["28x28", "conv 32 5 pool 2", "conv 64 5 pool 2", 10]`.

use crate::model::{Convolution, Dims, Maps, Network};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Deref;

/// Layers, input first, and how many neurons each has; input and output are 0 until the data is known that they are left to.
#[derive(Clone, Debug, PartialEq)]
pub struct Layers {
    written: Vec<Layer>,
    dims: Dims,
    /// What leads to each layer from the one before it, where that is a convolution; to the first hidden layer first.
    convolutions: Vec<Option<Convolution>>,
}

/// A layer as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layer {
    /// So many neurons.
    Neurons(usize),
    /// As many as the data has pixels or classes: `"auto"`.
    Open,
    /// Images: `"28x28"`, `"32x32x3"`.
    Images(Maps),
    /// Maps that a convolution makes: `"conv CHANNELS KERNEL [pad P] [pool P]"`.
    Convolution { channels: usize, kernel: usize, padding: usize, pool: usize },
}

/// The largest side of images, filters and windows, and the most maps: no product of them is too large for a number.
const MOST: usize = 1024;

/// What a layer may be.
const EXPECTED: &str = "a size is a number of neurons above 0, or \"auto\"; or images as in \"28x28\" and \"32x32x3\", and a \
                        convolution as in \"conv 32 5 pool 2\" and \"conv 64 3 pad 1\"";

impl Layer {
    fn read(word: &str) -> Option<Self> {
        let number = |word: &str| word.parse().ok().filter(|number| (1..=MOST).contains(number));
        let words: Vec<&str> = word.split_whitespace().collect();
        match words[..] {
            ["auto"] => Some(Layer::Open),
            ["conv", channels, kernel, ref rest @ ..] => {
                let (padding, rest) = match rest {
                    ["pad", padding, rest @ ..] => (number(padding)?, rest),
                    _ => (0, rest),
                };
                let (pool, rest) = match rest {
                    ["pool", pool, rest @ ..] => (number(pool)?, rest),
                    _ => (1, rest),
                };
                let (channels, kernel) = (number(channels)?, number(kernel)?);
                rest.is_empty().then_some(Layer::Convolution { channels, kernel, padding, pool })
            }
            [size] => {
                let sides: Vec<usize> = size.split('x').map(number).collect::<Option<_>>()?;
                match sides[..] {
                    [height, width] => Some(Layer::Images(Maps { channels: 1, height, width })),
                    [height, width, channels] => Some(Layer::Images(Maps { channels, height, width })),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Layer::Neurons(neurons) => write!(f, "{neurons}"),
            Layer::Open => write!(f, "auto"),
            Layer::Images(Maps { channels: 1, height, width }) => write!(f, "{height}x{width}"),
            Layer::Images(Maps { channels, height, width }) => write!(f, "{height}x{width}x{channels}"),
            Layer::Convolution { channels, kernel, padding, pool } => {
                write!(f, "conv {channels} {kernel}")?;
                if *padding > 0 {
                    write!(f, " pad {padding}")?;
                }
                if *pool > 1 { write!(f, " pool {pool}") } else { Ok(()) }
            }
        }
    }
}

/// Images of so many rows, columns and channels, as they are written.
pub fn images(shape: [usize; 3]) -> String {
    let [height, width, channels] = shape;
    Layer::Images(Maps { channels, height, width }).to_string()
}

impl Layers {
    /// Layers of these kinds.
    ///
    /// # Errors
    /// Names the first layer that does not fit the one before it, and the sizes.
    fn new(written: Vec<Layer>) -> Result<Self, String> {
        let (mut sizes, mut convolutions) = (Vec::new(), Vec::new());
        let mut before = None;
        for (i, layer) in written.iter().enumerate() {
            let place = || match i {
                0 => format!("the input, \"{layer}\","),
                _ => format!("layer {i}, \"{layer}\","),
            };
            let mut convolution = None;
            let maps = match *layer {
                Layer::Images(maps) if i == 0 => Some(maps),
                Layer::Images(_) => {
                    return Err(format!("{} is the size of images, which only the input has", place()));
                }
                Layer::Neurons(_) | Layer::Open => None,
                Layer::Convolution { channels, kernel, padding, pool } => {
                    let Some(source) = before else {
                        return Err(format!(
                            "{} reads images or maps, and the layer before it has none: begin with the rows and columns \
                             of the images, as in \"28x28\", and put convolutions next to them",
                            place()
                        ));
                    };
                    if i + 1 == written.len() {
                        return Err(format!(
                            "{} is the output, which is a number of classes: add that",
                            place()
                        ));
                    }
                    let made = Convolution { source, reads_images: i == 1, channels, kernel, padding, pool };
                    convolution = Some(made);
                    Some(fitting(&made).map_err(|misfit| format!("{} {misfit}", place()))?)
                }
            };
            let neurons = match (maps, layer) {
                (Some(maps), _) => maps.neurons(),
                (None, Layer::Neurons(neurons)) => *neurons,
                (None, _) => 0,
            };
            sizes.push(neurons);
            convolutions.extend((i > 0).then_some(convolution));
            before = maps;
        }
        Ok(Self { written, dims: Dims(sizes), convolutions })
    }

    /// The network, with tied weights or untied ones.
    pub fn network(&self, tied: bool) -> Network {
        let output = self.convolutions.len().saturating_sub(1);
        let convolutions = self.convolutions.iter().enumerate();
        let convolutions = convolutions.filter_map(|(i, convolution)| Some((output - i, (*convolution)?)));
        convolutions.fold(Network::layered(self.dims.clone(), tied), |network, (n, convolution)| {
            network.with_convolution(n, convolution)
        })
    }

    /// What stands for them in the name of a run: `-2h` of two hidden layers, `-2conv` where there are convolutions.
    pub fn kind(&self) -> String {
        format!("-{}{}", self.depth(), if self.has_convolutions() { "conv" } else { "h" })
    }

    /// Whether a layer has maps.
    pub fn has_convolutions(&self) -> bool {
        self.convolutions.iter().any(Option::is_some)
    }

    /// Whether input or output is left to the data.
    pub fn is_open(&self) -> bool {
        [self.written.first(), self.written.last()].contains(&Some(&Layer::Open))
    }

    /// The same with so many inputs and outputs where these are left to the data.
    pub fn filled(&self, inputs: usize, outputs: usize) -> Self {
        let mut filled = self.clone();
        let ends = [(0, inputs), (self.written.len().saturating_sub(1), outputs)];
        for (i, size) in ends {
            if let Some(layer @ Layer::Open) = filled.written.get_mut(i) {
                (*layer, filled.dims.0[i]) = (Layer::Neurons(size), size);
            }
        }
        filled
    }
}

/// The maps that a convolution makes, or how it does not fit what it reads.
fn fitting(convolution: &Convolution) -> Result<Maps, String> {
    let &Convolution { source: Maps { height, width, .. }, kernel, padding, pool, .. } = convolution;
    if padding >= kernel {
        return Err(format!(
            "puts {padding} zeros around its maps, so that filters of {kernel}x{kernel} see nothing else at the margin: pad at \
             most {}",
            kernel - 1
        ));
    }
    let padded = if padding > 0 { format!(" with {padding} zeros around them") } else { String::new() };
    let Some(convolved) = convolution.convolved() else {
        return Err(format!(
            "has filters of {kernel}x{kernel}, which do not fit what they read, {height}x{width}{padded}: choose smaller \
             filters, or pad more"
        ));
    };
    convolution.made().ok_or_else(|| {
        format!(
            "makes maps of {}x{} from {height}x{width}{padded}, which windows of {pool}x{pool} do not divide: choose another \
             pool, other filters, or pad",
            convolved.height, convolved.width
        )
    })
}

impl Deref for Layers {
    type Target = Dims;
    fn deref(&self) -> &Dims {
        &self.dims
    }
}

/// Layers as people read them: `784–512–10`, `28x28 – conv 32 5 pool 2 – 10`.
impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let written: Vec<String> = self.written.iter().map(Layer::to_string).collect();
        f.write_str(&written.join(if self.has_convolutions() { " – " } else { "–" }))
    }
}

impl Serialize for Layers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let word = |layer: &Layer| match layer {
            Layer::Neurons(neurons) => Word::Neurons(*neurons),
            _ => Word::Other(layer.to_string()),
        };
        serializer.collect_seq(self.written.iter().map(word))
    }
}

/// A layer in a file.
#[derive(Serialize)]
#[serde(untagged)]
enum Word {
    Neurons(usize),
    Other(String),
}

/// The same as it is read.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a size is a number of neurons above 0, or \"auto\"; or images as in \"28x28\" and \
                               \"32x32x3\", and a convolution as in \"conv 32 5 pool 2\" and \"conv 64 3 pad 1\""
)]
enum Given {
    Neurons(NonZeroUsize),
    Other(String),
}

impl<'de> Deserialize<'de> for Layers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let layer = |given| match given {
            Given::Neurons(neurons) => Ok(Layer::Neurons(neurons.get())),
            Given::Other(word) => Layer::read(&word).ok_or_else(|| D::Error::custom(EXPECTED)),
        };
        let written: Vec<Layer> =
            Vec::<Given>::deserialize(deserializer)?.into_iter().map(layer).collect::<Result<_, _>>()?;
        Layers::new(written).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Layers, String> {
        let value: toml::Value = text.parse().unwrap();
        Layers::deserialize(value).map_err(|error| error.message().to_string())
    }

    #[test]
    fn layers_are_written_as_they_were_read() {
        for (text, sizes) in [
            ("[784, 512, 10]", vec![784, 512, 10]),
            ("[\"auto\", 512, \"auto\"]", vec![0, 512, 0]),
            ("[\"28x28\", 512, 10]", vec![784, 512, 10]),
            ("[\"28x28\", \"conv 32 5 pool 2\", \"conv 64 5 pool 2\", 10]", vec![784, 4608, 1024, 10]),
            (
                "[\"32x30x3\", \"conv 8 3 pad 1 pool 2\", \"conv 4 2\", 20, \"auto\"]",
                vec![2880, 1920, 840, 20, 0],
            ),
        ] {
            let layers = read(text).unwrap();
            assert_eq!(layers.0, sizes, "{text}");
            let written = toml::Value::try_from(&layers).unwrap();
            assert_eq!(written, text.parse::<toml::Value>().unwrap());
        }
        // Spaces more than necessary, and a pool of 1, say nothing.
        let plain = read("[\"28x28\", \" conv  4 5 pool 1 \", 10]").unwrap();
        assert_eq!(plain, read("[\"28x28\", \"conv 4 5\", 10]").unwrap());
    }

    #[test]
    fn what_is_left_to_the_data_is_filled() {
        let filled = |text: &str| read(text).unwrap().filled(784, 10);
        assert_eq!(filled("[\"auto\", 512, \"auto\"]").0, [784, 512, 10]);
        assert_eq!(filled("[\"8x8\", \"conv 2 3\", \"auto\"]").0, [64, 72, 10]);
        assert_eq!(filled("[5, 6, 7]").0, [5, 6, 7]);
    }

    #[test]
    fn a_misfit_is_told_with_the_layer_and_the_sizes() {
        for (text, expected) in [
            (
                "[\"28x28\", \"conv 32 5 pool 5\", 10]",
                "layer 1, \"conv 32 5 pool 5\", makes maps of 24x24 from 28x28",
            ),
            (
                "[\"28x28\", \"conv 32 5 pool 2\", \"conv 4 13\", 10]",
                "filters of 13x13, which do not fit what they read, 12x12",
            ),
            ("[\"28x28\", \"conv 32 5 pad 5\", 10]", "pad at most 4"),
            ("[784, \"conv 32 5\", 10]", "begin with the rows and columns"),
            ("[\"28x28\", 512, \"conv 32 5\", 10]", "layer 2, \"conv 32 5\", reads images or maps"),
            ("[\"28x28\", \"conv 32 5\"]", "add that"),
            ("[784, \"28x28\", 10]", "which only the input has"),
            ("[\"28x28\", \"conv 32\", 10]", "a convolution as in"),
            ("[\"28x28\", \"conv 32 5 pool 0\", 10]", "a convolution as in"),
            ("[\"28x28\", \"conv 99999 5\", 10]", "a convolution as in"),
            ("[0, 5, 10]", "above 0"),
            ("[28.5, 5, 10]", "above 0"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
