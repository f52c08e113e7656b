"""Likelihoods p(x | z): noise models over images, parametrized by the decoder's output.

A likelihood is a module whose forward returns a distribution over images that is normalized over
its support, so that `log_prob` is in nats per image. To add a likelihood, write one class in a file
of this folder and import the file below. `likelihood=NAME` is then a choice on the command line, in
sweeps, in checkpoints and in the tests.

    name                            support            p(x | z), a product over pixels unless noted
    bernoulli                       {0, 1}             m^x (1 - m)^(1 - x),  m = sigmoid(.)     mass
    categorical                     {0, ..., 255}      any 256 probabilities                    mass
    discretized_logistic_mixture    {0, ..., 255}      rounded logistics, coupled channels      mass
    continuous_bernoulli            [0, 1]             proportional to m^x (1 - m)^(1 - x)   density
    gaussian                        R                  N(x; m, s^2),  m = sigmoid(.)         density
    laplace                         R                  exp(-|x - m| / s) / 2s                density
"""

from vaegan.probability.likelihoods import bernoulli, eight_bit, location_scale
