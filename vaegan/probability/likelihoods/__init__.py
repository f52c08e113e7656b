"""Likelihoods p(x | z): noise models over images, parametrized by the decoder's output.

A likelihood is a module whose forward returns a distribution over images. The distribution is
normalized over its support, and `log_prob` is in nats per image. To add a likelihood, write one
class in a file of this folder and import the file below. `likelihood=NAME` then works on the
command line, in sweeps, in checkpoints and in the tests.

    name                            support                p(x | z) of a pixel and channel
    bernoulli                       {0, 1}                 m^x (1 - m)^(1 - x)                  mass
    categorical                     {0, 1/255, ..., 1}     256 free probabilities               mass
    discretized_logistic_mixture    {0, 1/255, ..., 1}     mixture of rounded logistics         mass
    continuous_bernoulli            [0, 1]                 c(m) m^x (1 - m)^(1 - x)          density
    gaussian                        real numbers           N(x; m, s^2)                      density
    laplace                         real numbers           exp(-|x - m| / s) / (2 s)         density

m is the sigmoid of a decoder output, s is a noise scale (`noise_scales`), c(m) is the normalizer.
p(x | z) is the product over pixels and channels; the channels of discretized_logistic_mixture
depend on each other.
"""

from vaegan.probability.likelihoods import bernoulli, eight_bit, location_scale
