// The README.md of every folder that we write: a Hugging Face model card made from the model's provenance.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "brick/model/model.h"

namespace brick::model {

enum class CardFor { kBrick, kTransformers };  // who loads the folder

// YAML head and Markdown: what the model is, from which parent, how it was made, how it is used. Says nothing that the
// model does not record; what of the provenance cannot be read is left out. `weight_bytes`: of model.safetensors;
// `license`: an identifier, or empty. The same model gives the same bytes, whatever folder it goes to.
std::string model_card(const Model& model, CardFor use, int64_t weight_bytes, const std::string& license);

// Writes it into the folder of a model that stands there already, with the licence of the model's source.
void write_model_card(const Model& model, CardFor use, const std::string& folder);

// The text if it can be a licence's identifier in a card ("apache-2.0", "llama3.2"), else empty.
std::string license_identifier(std::string_view text);
// Of a GGUF file (general.license) or a folder (its card); empty where none is named, or it cannot be read any more.
std::string license_of(const std::string& source);
// What `license:` in a card's YAML head names; empty where there is none.
std::string license_of_card(std::string_view card);

}  // namespace brick::model
