"""Noise models p(x | z): the distribution over images that a decoder's output parametrizes.

A likelihood is a module whose forward turns the decoder's parameters into a distribution over images, normalized over
its support, so that `log_prob` is in nats per image. To add a noise model, write one class in a file of this folder and
import the file below: it is at once a choice (`likelihood=NAME`) on the command line, in sweeps, in checkpoints and in
the tests.

    name                            support            p(x | z), a product over pixels unless said
    bernoulli                       {0, 1}             m^x (1 - m)^(1 - x),  m = sigmoid(.)                    mass
    categorical                     {0, 1, ..., 255}   any 256 probabilities                                   mass
    discretized_logistic_mixture    {0, 1, ..., 255}   rounded logistics, coupled over the channels            mass
    continuous_bernoulli            [0, 1]             proportional to m^x (1 - m)^(1 - x)                     density
    gaussian                        R                  N(x; m, s^2),  m = sigmoid(.)                           density
    laplace                         R                  exp(-|x - m| / s) / 2s,  m = sigmoid(.)                 density
"""

from vaegan.probability.likelihoods import bernoulli, density, eight_bit, location_scale  # noqa: F401  registers
