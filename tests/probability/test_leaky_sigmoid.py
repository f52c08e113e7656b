"""Tests of the sigmoid whose saturated values recover."""

from functools import partial

import pytest
import torch

from vaegan.probability.leaky_sigmoid import leaky_sigmoid

BOUND = 8.0
LOGITS = torch.tensor([-200.0, -20.0, -8.5, -7.5, -1.0, 0.0, 3.0, 7.9, 8.1, 40.0, 200.0])


def gradient(function, grad_output):
    logits = LOGITS.clone().requires_grad_()
    value = function(logits)
    value.backward(torch.full_like(logits, grad_output))
    return value.detach(), logits.grad


@pytest.mark.parametrize("grad_output", [-2.0, 0.5])
def test_it_is_the_sigmoid_but_for_gradients_beyond_the_bound(grad_output):
    value, grad = gradient(partial(leaky_sigmoid, bound=BOUND), grad_output)
    expected_value, expected_grad = gradient(torch.sigmoid, grad_output)
    assert torch.equal(value, expected_value)
    is_inside = LOGITS.abs() <= BOUND
    torch.testing.assert_close(grad[is_inside], expected_grad[is_inside])


@pytest.mark.parametrize("grad_output", [-2.0, 0.5])
def test_beyond_the_bound_only_a_step_toward_it_has_a_gradient(grad_output):
    _, grad = gradient(partial(leaky_sigmoid, bound=BOUND), grad_output)
    step = -grad
    is_outside = LOGITS.abs() > BOUND
    goes_inward = LOGITS * -grad_output < 0
    assert (step[is_outside & ~goes_inward] == 0).all()
    derivative = torch.tensor(BOUND).sigmoid() * torch.tensor(-BOUND).sigmoid()
    inward = grad[is_outside & goes_inward]
    expected = (grad_output * derivative).expand_as(inward)
    torch.testing.assert_close(inward, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("grad_output", [-2.0, 0.5])
def test_a_bound_of_zero_keeps_the_exact_gradient(grad_output):
    _, grad = gradient(partial(leaky_sigmoid, bound=0.0), grad_output)
    assert torch.equal(grad, gradient(torch.sigmoid, grad_output)[1])


def test_black_and_white_have_equal_gradients():
    """1 - sigmoid(20) would be rounded to 0 in float32."""
    logits = torch.tensor([-30.0, 30.0], requires_grad=True)
    leaky_sigmoid(logits, bound=20.0).backward(torch.tensor([-1.0, 1.0]))
    assert logits.grad[0] == -logits.grad[1] != 0
