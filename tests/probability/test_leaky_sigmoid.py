"""Tests of the sigmoid whose gradient does not vanish."""

import pytest
import torch

from vaegan.probability.leaky_sigmoid import MAX_LOGIT, leaky_sigmoid

LOGITS = torch.tensor([-200.0, -20.0, -8.5, -7.5, -1.0, 0.0, 3.0, 7.9, 8.1, 40.0, 200.0])


def gradient(function, grad_output):
    logits = LOGITS.clone().requires_grad_()
    value = function(logits)
    value.backward(torch.full_like(logits, grad_output))
    return value.detach(), logits.grad


@pytest.mark.parametrize("grad_output", [-2.0, 0.5])
def test_it_is_the_sigmoid_but_for_gradients_beyond_the_bound(grad_output):
    value, grad = gradient(leaky_sigmoid, grad_output)
    expected_value, expected_grad = gradient(torch.sigmoid, grad_output)
    assert torch.equal(value, expected_value)
    is_inside = LOGITS.abs() <= MAX_LOGIT
    torch.testing.assert_close(grad[is_inside], expected_grad[is_inside])


@pytest.mark.parametrize("grad_output", [-2.0, 0.5])
def test_beyond_the_bound_only_a_step_toward_it_has_a_gradient(grad_output):
    _, grad = gradient(leaky_sigmoid, grad_output)
    step = -grad
    is_outside = LOGITS.abs() > MAX_LOGIT
    goes_inward = LOGITS * -grad_output < 0
    assert (step[is_outside & ~goes_inward] == 0).all()
    derivative = torch.tensor(MAX_LOGIT).sigmoid() * torch.tensor(-MAX_LOGIT).sigmoid()
    inward = grad[is_outside & goes_inward]
    torch.testing.assert_close(
        inward, (grad_output * derivative).expand_as(inward), rtol=1e-3, atol=0
    )


def test_the_image_of_a_saturated_logit_is_that_of_an_8_bit_pixel():
    """The bound is close enough to 0 and 1 to round to them."""
    assert float(leaky_sigmoid(torch.tensor(-MAX_LOGIT))) * 255 < 0.1


def test_without_gradients_it_is_a_plain_sigmoid():
    """So exported graphs have no custom operator."""
    assert leaky_sigmoid(LOGITS).grad_fn is None
    with torch.no_grad():
        assert leaky_sigmoid(LOGITS.clone().requires_grad_()).grad_fn is None
